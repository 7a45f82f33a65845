#include <mobula/mobula.h>

#include <string>
#include <vector>

// [producer]
struct Frame {
  int number = 0;
  std::vector<float> pixels;
};

void camera(mobula::Sink<Frame>& out, int frames) {
  for (int i = 0; i < frames; ++i) {
    Frame frame{i, std::vector<float>(640 * 480)};
    out.push(frame);
  }
}
// [/producer]

int analyse(const Frame& frame) { return frame.number; }

// [worker]
int works(mobula::StreamRef<Frame> frames) {
  int done = 0;
  for (const Frame& frame : frames) {
    analyse(frame);
    ++done;
  }
  return done;
}
// [/worker]

struct Camera {
  int next = 0;
  void take(mobula::Sink<int>& out, int n) {
    for (int i = 0; i < n; ++i) out.push(next++);
  }
};

int main(int argc, char** argv) {
  const mobula::Session session(argc, argv);
  int sum = 0;
  // [read]
  mobula::StreamRef<Frame> frames = mobula::remote<camera>(10);  // returns at once
  for (const Frame& frame : frames) sum += analyse(frame);  // while the camera goes on
  // [/read]
  // [next]
  mobula::StreamRef<Frame> more = mobula::remote<camera>.with({.max_unread = 4})(1000);
  while (const std::optional<Frame> frame = more.next()) {
    if (analyse(*frame) == 20) break;
  }
  more.stop();  // the camera's next push throws StreamStopped
  // [/next]
  // [share]
  const mobula::StreamRef<Frame> work = mobula::remote<camera>(50);
  std::vector<mobula::Ref<int>> workers;
  for (int i = 0; i < 3; ++i) workers.push_back(mobula::remote<works>(work));
  int done = 0;
  for (const int each : mobula::get(workers)) done += each;  // 50: each frame goes to one of them
  // [/share]
  // [method]
  const auto actor = mobula::actor<Camera>();
  mobula::StreamRef<int> numbers = actor.call<&Camera::take>(3);
  // [/method]
  int seen = 0;
  for (const int number : numbers) seen += number;
  return sum == 45 && done == 50 && seen == 3 ? 0 : 1;
}
