// libtorch's tensors travel, and are read in place.
#define DOCTEST_CONFIG_IMPLEMENT
#define DOCTEST_CONFIG_NO_SHORT_MACRO_NAMES  // libtorch has a CHECK of its own
#include <doctest/doctest.h>
#include <mobula/interop/torch.h>

#include <cstdint>
#include <tuple>
#include <vector>

using mobula::get;
using mobula::put;
using mobula::Ref;
using mobula::remote;
using mobula::SharedTensor;
using torch::Tensor;

namespace {

Tensor product(const Tensor& a, const Tensor& b) { return torch::matmul(a, b); }
double sum_in_place(SharedTensor t) { return t.tensor.sum().item<double>(); }
bool same_place(const SharedTensor& a, const SharedTensor& b) {
  return a.tensor.data_ptr() == b.tensor.data_ptr();
}
std::tuple<Tensor, std::vector<Tensor>> halves(Tensor t) {
  t.mul_(2);  // its own copy
  return {t.clone(), t.chunk(2)};
}

struct Holder {  // keeps what it was given beyond the call
  Tensor kept;
  int keep(SharedTensor t) {
    kept = t.tensor.slice(0, 1);
    return 0;
  }
  double sum() { return kept.sum().item<double>(); }
};

}  // namespace

DOCTEST_TEST_CASE("tensors of several types and shapes come back as they were") {
  const std::vector<Tensor> tensors{torch::rand({3, 4, 5}),
                                    torch::arange(7),
                                    torch::tensor(2.5),
                                    torch::zeros({0, 3}),
                                    torch::ones({2}, torch::kBool),
                                    torch::rand({64, 64}, torch::kDouble),
                                    torch::rand({4, 6}).t(),
                                    torch::rand({5}, torch::kComplexFloat)};

  for (const Tensor& tensor : tensors) {
    const Tensor back = get(put(tensor));
    DOCTEST_CHECK((back.scalar_type() == tensor.scalar_type()));
    DOCTEST_CHECK(torch::equal(back, tensor));
  }
  const Tensor with_gradient = torch::rand({3}, torch::requires_grad());
  DOCTEST_CHECK(!get(put(with_gradient)).requires_grad());
}

DOCTEST_TEST_CASE("tasks take tensors, and return several of them") {
  const Tensor a = torch::rand({30, 20});
  const Tensor b = torch::rand({20, 10});

  DOCTEST_CHECK(torch::allclose(get(remote<product>(put(a), b)), torch::matmul(a, b)));
  const auto [all, parts] = get(remote<halves>(a));
  DOCTEST_CHECK(torch::equal(all, a * 2));
  DOCTEST_CHECK(torch::equal(torch::cat(parts), all));
}

DOCTEST_TEST_CASE("a SharedTensor reads the store in place, as long as it or a view of it lives") {
  const Ref<Tensor> ref = put(torch::ones({1000, 10}));

  DOCTEST_CHECK(get(remote<sum_in_place>(ref)) == 10'000);
  DOCTEST_CHECK(get(remote<sum_in_place>(torch::ones({3}))) == 3);
  DOCTEST_CHECK(get(remote<same_place>(ref, ref)));
  const Tensor row = [] {
    return mobula::get_tensor(put(torch::full({500, 4}, 0.25))).tensor.select(0, 499);
  }();
  DOCTEST_CHECK(row.sum().item<float>() == 1);
  const SharedTensor once = mobula::get_tensor(ref);
  DOCTEST_CHECK(once.tensor.data_ptr() == mobula::get_tensor(ref).tensor.data_ptr());
  DOCTEST_CHECK(reinterpret_cast<std::uintptr_t>(once.tensor.data_ptr()) % 64 == 0);

  const auto holder = mobula::actor<Holder>();
  get(holder.call<&Holder::keep>(put(torch::ones({1001, 10}))));
  for (int i = 0; i < 20; ++i) put(torch::zeros({1001, 10}));  // what was freed is used again
  DOCTEST_CHECK(get(holder.call<&Holder::sum>()) == 10'000);
}

DOCTEST_TEST_CASE("what cannot travel is refused, and so are bytes of no tensor") {
  DOCTEST_CHECK_THROWS_AS(put(Tensor()), mobula::Error);
  DOCTEST_CHECK_THROWS_AS(put(torch::eye(3).to_sparse()), mobula::Error);

  const auto decode_words = [](std::vector<std::uint64_t> words) {
    mobula::Reader reader(reinterpret_cast<const std::byte*>(words.data()), words.size() * 8);
    return mobula::decode<Tensor>(reader);
  };
  constexpr auto kLong = static_cast<std::uint64_t>(torch::kLong);
  DOCTEST_CHECK(decode_words({kLong, 1, 2, 16, 5, 6})[1].item<std::int64_t>() == 6);
  DOCTEST_CHECK_THROWS_AS(decode_words({999, 0, 8, 0}), mobula::DecodeError);
  DOCTEST_CHECK_THROWS_AS(decode_words({kLong, 1, 3, 16, 5, 6}), mobula::DecodeError);
  DOCTEST_CHECK_THROWS_AS(decode_words({kLong, 1, ~0ull, 16, 5, 6}), mobula::DecodeError);
  DOCTEST_CHECK_THROWS_AS(decode_words({kLong, 2, 1ull << 62, 8, 0}), mobula::DecodeError);
  DOCTEST_CHECK_THROWS_AS(decode_words({kLong, 1ull << 60, 1, 8, 0}), mobula::DecodeError);
  DOCTEST_CHECK_THROWS_AS(decode_words({kLong, 1, 200, 1600, 5, 6}), mobula::DecodeError);
}

int main(int argc, char** argv) {
  const mobula::Session session(argc, argv, {.num_cpus = 2});
  torch::set_num_threads(1);
  return doctest::Context(argc, argv).run();
}
