// Canvas as pixels: coverage masks blended once per shape, so that a line that crosses
// itself stays even, and written by libpng.
#include <png.h>

#include <algorithm>
#include <cmath>
#include <stdexcept>
#include <string>
#include <vector>

#include "canvas.h"

namespace rl_es {
namespace {

// How much of each pixel a shape covers, with the rectangle that holds it all.
class Mask {
 public:
  Mask(int width, int height)
      : width_(width), height_(height), cover_(static_cast<std::size_t>(width * height)) {}

  int width() const { return width_; }
  int height() const { return height_; }

  float& at(int x, int y) {
    left = std::min(left, x);
    right = std::max(right, x);
    top = std::min(top, y);
    bottom = std::max(bottom, y);
    return cover_[static_cast<std::size_t>(y * width_ + x)];
  }

  template <class Visit>
  void take(Visit visit) {
    for (int y = top; y <= bottom; ++y) {
      for (int x = left; x <= right; ++x) {
        float& cover = cover_[static_cast<std::size_t>(y * width_ + x)];
        if (cover > 0) visit(x, y, std::min(cover, 1.0f));
        cover = 0;
      }
    }
    left = top = 1 << 30;
    right = bottom = -1;
  }

 private:
  int left = 1 << 30, right = -1, top = 1 << 30, bottom = -1;
  int width_;
  int height_;
  std::vector<float> cover_;
};

double distance_to_segment(Point p, Point a, Point b) {
  const Point along{b.x - a.x, b.y - a.y};
  const double square = along.x * along.x + along.y * along.y;
  const double part =
      square > 0 ? std::clamp(((p.x - a.x) * along.x + (p.y - a.y) * along.y) / square, 0.0, 1.0)
                 : 0.0;
  return std::hypot(p.x - a.x - part * along.x, p.y - a.y - part * along.y);
}

// Covers everything nearer than half the width: round ends and joins come by themselves.
void cover_segment(Mask& mask, Point a, Point b, double width) {
  const double reach = width / 2 + 1;
  const int left = std::max(0, static_cast<int>(std::min(a.x, b.x) - reach));
  const int right = std::min(mask.width() - 1, static_cast<int>(std::max(a.x, b.x) + reach));
  const int top = std::max(0, static_cast<int>(std::min(a.y, b.y) - reach));
  const int bottom = std::min(mask.height() - 1, static_cast<int>(std::max(a.y, b.y) + reach));
  for (int y = top; y <= bottom; ++y) {
    for (int x = left; x <= right; ++x) {
      const double near = width / 2 + 0.5 - distance_to_segment({x + 0.5, y + 0.5}, a, b);
      if (near <= 0) continue;
      float& cover = mask.at(x, y);
      cover = std::max(cover, static_cast<float>(std::min(near, 1.0)));
    }
  }
}

// Even-odd fill: a few sub-lines for each row of pixels, exact along each of them.
void cover_area(Mask& mask, std::span<const Point> outline) {
  constexpr int kSubLines = 5;
  std::vector<double> crossings;
  for (int y = 0; y < mask.height(); ++y) {
    for (int sub = 0; sub < kSubLines; ++sub) {
      const double level = y + (sub + 0.5) / kSubLines;
      crossings.clear();
      for (std::size_t i = 0; i < outline.size(); ++i) {
        const Point a = outline[i];
        const Point b = outline[(i + 1) % outline.size()];
        if ((a.y <= level) != (b.y <= level))
          crossings.push_back(a.x + (level - a.y) / (b.y - a.y) * (b.x - a.x));
      }
      std::sort(crossings.begin(), crossings.end());
      for (std::size_t i = 0; i + 1 < crossings.size(); i += 2) {
        const double from = std::max(crossings[i], 0.0);
        const double to = std::min(crossings[i + 1], static_cast<double>(mask.width()));
        for (int x = static_cast<int>(from); x < to; ++x) {
          const double part = std::min(to, x + 1.0) - std::max(from, static_cast<double>(x));
          if (part > 0) mask.at(x, y) += static_cast<float>(part / kSubLines);
        }
      }
    }
  }
}

class PngCanvas final : public Canvas {
 public:
  PngCanvas(int width, int height, int scale)
      : scale_(scale),
        mask_(width * scale, height * scale),
        pixels_(static_cast<std::size_t>(3 * mask_.width() * mask_.height()), 255) {}

  void line(std::span<const Point> points, Color color, double width) override {
    cover_line(points, width);
    blend(color);
  }

  void area(std::span<const Point> outline, Color color) override {
    std::vector<Point> scaled;
    for (const Point& point : outline) scaled.push_back({point.x * scale_, point.y * scale_});
    cover_area(mask_, scaled);
    blend(color);
  }

  void text(Point at, std::string_view text, const TextStyle& style) override {
    const TextStrokes letters = text_strokes(text);
    const double shift = style.anchor == Anchor::kStart    ? 0
                         : style.anchor == Anchor::kMiddle ? 0.5
                                                           : 1;
    std::vector<Point> placed;
    for (const std::vector<Point>& stroke : letters.strokes) {
      placed.clear();
      for (const Point& point : stroke) {
        const double x = (point.x - shift * letters.width) * style.size;
        const double y = point.y * style.size;
        placed.push_back(style.upwards ? Point{at.x + y, at.y - x} : Point{at.x + x, at.y + y});
      }
      cover_line(placed, style.size * kTextStrokeWidth * (style.bold ? 1.6 : 1));
    }
    blend(style.color);
  }

  void save(const std::filesystem::path& path) const override {
    png_image image{};
    image.version = PNG_IMAGE_VERSION;
    image.width = static_cast<png_uint_32>(mask_.width());
    image.height = static_cast<png_uint_32>(mask_.height());
    image.format = PNG_FORMAT_RGB;
    if (!png_image_write_to_file(&image, path.c_str(), 0, pixels_.data(), 0, nullptr)) {
      throw std::runtime_error("cannot write " + path.string() + ": " + image.message);
    }
  }

 private:
  void cover_line(std::span<const Point> points, double width) {
    for (std::size_t i = 0; i < points.size(); ++i) {
      const Point a = points[i];
      const Point b = points[std::min(i + 1, points.size() - 1)];
      if (i + 1 == points.size() && points.size() > 1) break;  // a lone point still makes a dot
      cover_segment(mask_, {a.x * scale_, a.y * scale_}, {b.x * scale_, b.y * scale_},
                    width * scale_);
    }
  }

  void blend(Color color) {
    const std::uint8_t ink[3] = {color.red, color.green, color.blue};
    mask_.take([&](int x, int y, float cover) {
      std::uint8_t* pixel = &pixels_[static_cast<std::size_t>(3 * (y * mask_.width() + x))];
      const double alpha = color.alpha * static_cast<double>(cover);
      for (int i = 0; i < 3; ++i)
        pixel[i] = static_cast<std::uint8_t>(std::lround(pixel[i] + alpha * (ink[i] - pixel[i])));
    });
  }

  int scale_;
  Mask mask_;
  std::vector<std::uint8_t> pixels_;
};

}  // namespace

std::unique_ptr<Canvas> png_canvas(int width, int height, int scale) {
  return std::make_unique<PngCanvas>(width, height, scale);
}

}  // namespace rl_es
