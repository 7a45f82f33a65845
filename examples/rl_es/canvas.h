// Decides how shapes become a file: the plot draws once, on this interface, and comes out as
// SVG or as PNG. Lengths are in pixels of a 1:1 screen, y grows downwards.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string_view>

#include "stroke_font.h"

namespace rl_es {

struct Color {
  std::uint8_t red = 0;
  std::uint8_t green = 0;
  std::uint8_t blue = 0;
  double alpha = 1;
};

enum class Anchor { kStart, kMiddle, kEnd };

struct TextStyle {
  double size = 12;  // em, pixels
  Color color;
  Anchor anchor = Anchor::kStart;
  bool bold = false;
  bool upwards = false;  // turned a quarter to the left
};

class Canvas {
 public:
  virtual ~Canvas() = default;
  virtual void line(std::span<const Point> points, Color color, double width) = 0;
  virtual void area(std::span<const Point> outline, Color color) = 0;
  virtual void text(Point at, std::string_view text, const TextStyle& style) = 0;

  // Throws std::runtime_error that names the file.
  virtual void save(const std::filesystem::path& path) const = 0;
};

std::unique_ptr<Canvas> svg_canvas(int width, int height);

// scale: pixels of the file for each pixel of the drawing.
std::unique_ptr<Canvas> png_canvas(int width, int height, int scale);

}  // namespace rl_es
