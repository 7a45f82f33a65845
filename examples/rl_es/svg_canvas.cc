// Canvas as SVG text.
#include <cstdio>
#include <fstream>
#include <stdexcept>
#include <string>

#include "canvas.h"

namespace rl_es {
namespace {

std::string number(double value) {
  char text[32];
  std::snprintf(text, sizeof text, "%.2f", value);
  return text;
}

std::string paint(const char* property, Color color) {
  char text[80];
  std::snprintf(text, sizeof text, " %s=\"#%02x%02x%02x\"", property, color.red, color.green,
                color.blue);
  std::string out = text;
  if (color.alpha < 1)
    out += std::string(" ") + property + "-opacity=\"" + number(color.alpha) + "\"";
  return out;
}

std::string escaped(std::string_view text) {
  std::string out;
  for (const char letter : text) {
    if (letter == '<')
      out += "&lt;";
    else if (letter == '>')
      out += "&gt;";
    else if (letter == '&')
      out += "&amp;";
    else
      out += letter;
  }
  return out;
}

std::string list(std::span<const Point> points) {
  std::string out;
  for (const Point& point : points) {
    if (!out.empty()) out += ' ';
    out += number(point.x) + ',' + number(point.y);
  }
  return out;
}

class SvgCanvas final : public Canvas {
 public:
  SvgCanvas(int width, int height) {
    const std::string w = std::to_string(width);
    const std::string h = std::to_string(height);
    body_ = "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"" + w + "\" height=\"" + h +
            "\" viewBox=\"0 0 " + w + ' ' + h +
            "\" font-family=\"Inter, Helvetica Neue, Helvetica, Arial, sans-serif\">\n";
  }

  void line(std::span<const Point> points, Color color, double width) override {
    body_ += "<polyline points=\"" + list(points) + "\" fill=\"none\"" + paint("stroke", color) +
             " stroke-width=\"" + number(width) +
             "\" stroke-linecap=\"round\" stroke-linejoin=\"round\"/>\n";
  }

  void area(std::span<const Point> outline, Color color) override {
    body_ += "<polygon points=\"" + list(outline) + "\"" + paint("fill", color) + "/>\n";
  }

  void text(Point at, std::string_view text, const TextStyle& style) override {
    static constexpr const char* kAnchors[] = {"start", "middle", "end"};
    const std::string x = number(at.x);
    const std::string y = number(at.y);
    body_ += "<text x=\"" + x + "\" y=\"" + y + "\" font-size=\"" + number(style.size) +
             "\" text-anchor=\"" + kAnchors[static_cast<int>(style.anchor)] + "\"" +
             paint("fill", style.color);
    if (style.bold) body_ += " font-weight=\"600\"";
    if (style.upwards) body_ += " transform=\"rotate(-90 " + x + ' ' + y + ")\"";
    body_ += '>';
    body_ += escaped(text);
    body_ += "</text>\n";
  }

  void save(const std::filesystem::path& path) const override {
    std::ofstream file(path);
    file << body_ << "</svg>\n";
    if (!file.flush()) throw std::runtime_error("cannot write " + path.string());
  }

 private:
  std::string body_;
};

}  // namespace

std::unique_ptr<Canvas> svg_canvas(int width, int height) {
  return std::make_unique<SvgCanvas>(width, height);
}

}  // namespace rl_es
