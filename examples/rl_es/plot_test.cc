#include "plot.h"

#include <doctest/doctest.h>
#include <png.h>
#include <unistd.h>

#include <array>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <stdexcept>
#include <string>

namespace rl_es {
namespace {

std::filesystem::path scratch_file(const char* name) {
  return std::filesystem::temp_directory_path() /
         ("rl_es-" + std::to_string(getpid()) + "-" + name);
}

LearningCurve rising_curve(int points) {
  LearningCurve curve;
  curve.title = "rises & shines <fast>";
  curve.subtitle = "seed 1";
  for (int i = 0; i < points; ++i) {
    curve.mean.push_back(i * 2.0);
    curve.spread.push_back(5);
    curve.best.push_back(i * 2.5 + 8);
    curve.policy.push_back(i * 2.1);
  }
  return curve;
}

struct Picture {
  png_image image{};
  std::vector<std::uint8_t> pixels;
};

Picture read_png(const std::filesystem::path& path) {
  Picture picture;
  picture.image.version = PNG_IMAGE_VERSION;
  REQUIRE(png_image_begin_read_from_file(&picture.image, path.c_str()));
  picture.image.format = PNG_FORMAT_RGB;
  picture.pixels.resize(PNG_IMAGE_SIZE(picture.image));
  REQUIRE(png_image_finish_read(&picture.image, nullptr, picture.pixels.data(), 0, nullptr));
  return picture;
}

std::size_t count_color(const Picture& picture, std::array<std::uint8_t, 3> color) {
  std::size_t count = 0;
  for (std::size_t i = 0; i + 2 < picture.pixels.size(); i += 3) {
    if (std::equal(color.begin(), color.end(),
                   picture.pixels.begin() + static_cast<std::ptrdiff_t>(i)))
      ++count;
  }
  return count;
}

TEST_CASE("ticks are round numbers that cover the range") {
  CHECK(nice_ticks(0, 10, 5) == std::vector<double>{0, 2, 4, 6, 8, 10});
  CHECK(nice_ticks(-3, 17, 4) == std::vector<double>{-5, 0, 5, 10, 15, 20});
  for (const double high : {0.013, 1.0, 7.0, 999.0, 123456.0}) {
    const std::vector<double> ticks = nice_ticks(0, high, 6);
    CAPTURE(high);
    CHECK(ticks.front() <= 0);
    CHECK(ticks.back() >= high * 0.999);
    CHECK(ticks.size() >= 4);
    CHECK(ticks.size() <= 9);
  }
}

TEST_CASE("the PNG shows the lines of the curve, at twice the size of the drawing") {
  const std::filesystem::path path = scratch_file("curve.png");
  write_png(path, rising_curve(50));
  const Picture picture = read_png(path);
  write_png(path, rising_curve(0));
  const Picture empty = read_png(path);
  std::filesystem::remove(path);

  CHECK(picture.image.width == 1920);
  CHECK(picture.image.height == 1120);
  const std::array<std::uint8_t, 3> blue = {37, 99, 235};
  CHECK(count_color(picture, blue) > count_color(empty, blue) + 3000);
  CHECK(count_color(picture, {255, 255, 255}) > picture.pixels.size() / 3 / 2);
}

TEST_CASE("the SVG closes what it opens and escapes its text") {
  const std::filesystem::path path = scratch_file("curve.svg");
  write_svg(path, rising_curve(50));
  std::ifstream file(path);
  const std::string text{std::istreambuf_iterator<char>(file), {}};
  std::filesystem::remove(path);

  CHECK(text.starts_with("<svg "));
  CHECK(text.ends_with("</svg>\n"));
  CHECK(text.find("rises &amp; shines &lt;fast&gt;") != text.npos);
  CHECK(text.find("nan") == text.npos);
}

TEST_CASE("one iteration, or none, makes a picture too") {
  const std::filesystem::path path = scratch_file("small.svg");
  for (const int points : {0, 1, 2}) {
    CAPTURE(points);
    write_svg(path, rising_curve(points));
    CHECK(std::filesystem::file_size(path) > 500);
  }
  std::filesystem::remove(path);
}

TEST_CASE("a picture that cannot be written is an error that names the file") {
  const std::filesystem::path path = "/no/such/folder/curve";
  CHECK_THROWS_AS(write_png(path, rising_curve(3)), std::runtime_error);
  CHECK_THROWS_WITH_AS(write_svg(path, rising_curve(3)), "cannot write /no/such/folder/curve",
                       std::runtime_error);
}

TEST_CASE("text has strokes and a width, and letters it does not know become a box") {
  const TextStrokes known = text_strokes("a");
  const TextStrokes unknown = text_strokes("~");

  CHECK(known.width > 0);
  CHECK(text_strokes("aa").width > known.width);
  REQUIRE(unknown.strokes.size() == 1);
  CHECK(unknown.strokes[0].size() == 5);
  CHECK(text_strokes("\xC2\xB1").strokes.size() == 3);
}

}  // namespace
}  // namespace rl_es
