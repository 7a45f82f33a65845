// The glyph table and its small path language.
//
// Units: capitals are 7 high, small letters 4.9, y grows upwards from the baseline.
//   m x y            lift the pen and move
//   l x y            line to
//   a cx cy rx ry from to   arc of an ellipse, degrees, counter-clockwise when to > from;
//                    joined to the stroke when the pen is already down at its start
#include "stroke_font.h"

#include <cmath>
#include <cstdlib>
#include <numbers>
#include <string>

namespace rl_es {
namespace {

constexpr double kUnitsPerEm = 9.9;
constexpr double kLetterSpace = 0.25;
constexpr char kPlusMinus = '\x01';
constexpr char kBox = '\x02';

struct Glyph {
  char letter;
  double advance;
  const char* path;
};

constexpr Glyph kGlyphs[] = {
    {' ', 2.9, ""},
    {'0', 5.8, "a 2.1 3.5 2.1 3.5 0 360"},
    {'1', 5.8, "m .6 5.6 l 2.4 7 l 2.4 0"},
    {'2', 5.8, "a 2.1 4.9 2 2.1 165 -30 l .1 0 l 4.2 0"},
    {'3', 5.8, "a 2 5.2 1.8 1.8 150 -90 a 2 1.7 2.1 1.7 90 -150"},
    {'4', 5.8, "m 3.2 0 l 3.2 7 l 0 2 l 4.4 2"},
    {'5', 5.8, "m 3.9 7 l .8 7 l .5 3.75 a 2.1 2.25 2.1 2.25 135 -145"},
    {'6', 5.8, "a 2.1 2.2 2.1 2.2 0 360 m 0 2.2 a 3.6 2.2 3.6 4.8 180 95"},
    {'7', 5.8, "m 0 7 l 4.2 7 l 1.4 0"},
    {'8', 5.8, "a 2.1 5.25 1.75 1.75 0 360 m 4.2 1.75 a 2.1 1.75 2.1 1.75 0 360"},
    {'9', 5.8, "a 2.1 4.8 2.1 2.2 0 360 m 4.2 4.8 a .6 4.8 3.6 4.8 0 -85"},
    {'A', 6.5, "m 0 0 l 2.6 7 l 5.2 0 m .95 2.5 l 4.25 2.5"},
    {'B', 5.9,
     "m 0 0 l 0 7 l 2.2 7 a 2.2 5.25 1.8 1.75 90 -90 l 0 3.5 m 2.2 3.5 a 2.2 1.75 2.1 1.75 90 -90 "
     "l 0 0"},
    {'C', 6.5, "a 3 3.5 3 3.5 45 315"},
    {'D', 6.6, "m 0 0 l 0 7 l 1.8 7 a 1.8 3.5 3.2 3.5 90 -90 l 0 0"},
    {'E', 5.4, "m 4 7 l 0 7 l 0 0 l 4 0 m 0 3.6 l 3.4 3.6"},
    {'F', 5.2, "m 4 7 l 0 7 l 0 0 m 0 3.5 l 3.3 3.5"},
    {'G', 7.4, "a 3 3.5 3 3.5 45 355 m 3.5 3.2 l 6 3.2"},
    {'H', 6.6, "m 0 0 l 0 7 m 4.8 0 l 4.8 7 m 0 3.6 l 4.8 3.6"},
    {'I', 1.9, "m 0 0 l 0 7"},
    {'J', 4.8, "m 3 7 l 3 1.6 a 1.5 1.6 1.5 1.6 0 -160"},
    {'K', 6, "m 0 0 l 0 7 m 4.4 7 l 0 2.8 m 1.6 4.3 l 4.6 0"},
    {'L', 5, "m 0 7 l 0 0 l 3.8 0"},
    {'M', 7.8, "m 0 0 l 0 7 l 3 1.6 l 6 7 l 6 0"},
    {'N', 6.6, "m 0 0 l 0 7 l 4.8 0 l 4.8 7"},
    {'O', 8, "a 3.2 3.5 3.2 3.5 0 360"},
    {'P', 5.6, "m 0 0 l 0 7 l 2.3 7 a 2.3 5.1 1.9 1.9 90 -90 l 0 3.2"},
    {'Q', 8, "a 3.2 3.5 3.2 3.5 0 360 m 4 1.6 l 6 -.4"},
    {'R', 6, "m 0 0 l 0 7 l 2.3 7 a 2.3 5.1 1.9 1.9 90 -90 l 0 3.2 m 2.2 3.2 l 4.4 0"},
    {'S', 5.8, "a 2.2 5.25 1.9 1.75 40 270 a 2.2 1.75 2.1 1.75 90 -140"},
    {'T', 6, "m 0 7 l 4.8 7 m 2.4 7 l 2.4 0"},
    {'U', 6.4, "m 0 7 l 0 2.3 a 2.3 2.3 2.3 2.3 180 360 l 4.6 7"},
    {'V', 6.2, "m 0 7 l 2.5 0 l 5 7"},
    {'W', 8.4, "m 0 7 l 1.8 0 l 3.6 6 l 5.4 0 l 7.2 7"},
    {'X', 5.9, "m 0 0 l 4.6 7 m 0 7 l 4.6 0"},
    {'Y', 6, "m 0 7 l 2.4 3.4 l 4.8 7 m 2.4 3.4 l 2.4 0"},
    {'Z', 5.8, "m 0 7 l 4.4 7 l 0 0 l 4.4 0"},
    {'a', 5.6, "a 2 2.45 2 2.45 0 360 m 4 4.9 l 4 0"},
    {'b', 5.5, "m 0 7.2 l 0 0 m 4 2.45 a 2 2.45 2 2.45 0 360"},
    {'c', 4.9, "a 2.1 2.45 2.1 2.45 50 310"},
    {'d', 5.6, "a 2 2.45 2 2.45 0 360 m 4 7.2 l 4 0"},
    {'e', 5.4, "m .05 2.6 l 4.1 2.6 a 2.05 2.45 2.05 2.45 4 315"},
    {'f', 3.5, "m 1.1 0 l 1.1 5.6 a 2.4 5.6 1.3 1.6 180 80 m 0 4.8 l 2.4 4.8"},
    {'g', 5.6, "a 2 2.45 2 2.45 0 360 m 4 4.9 l 4 -.2 a 2.1 -.2 1.9 1.9 0 -150"},
    {'h', 5.3, "m 0 0 l 0 7.2 m 0 3 a 1.8 3 1.8 1.9 180 0 l 3.6 0"},
    {'i', 1.9, "m 0 0 l 0 4.9 m 0 6.6 l 0 6.8"},
    {'j', 2.5, "m .8 4.9 l .8 -.6 a -.3 -.6 1.1 1.3 0 -80 m .8 6.6 l .8 6.8"},
    {'k', 4.8, "m 0 0 l 0 7.2 m 3.4 4.9 l 0 1.9 m 1.2 3 l 3.6 0"},
    {'l', 1.9, "m 0 0 l 0 7.2"},
    {'m', 7.5,
     "m 0 0 l 0 4.9 m 0 3.2 a 1.45 3.2 1.45 1.7 180 0 l 2.9 0 m 2.9 3.2 a 4.35 3.2 1.45 1.7 180 0 "
     "l 5.8 0"},
    {'n', 5.3, "m 0 0 l 0 4.9 m 0 3 a 1.8 3 1.8 1.9 180 0 l 3.6 0"},
    {'o', 5.7, "a 2.15 2.45 2.15 2.45 0 360"},
    {'p', 5.5, "m 0 4.9 l 0 -2 m 4 2.45 a 2 2.45 2 2.45 0 360"},
    {'q', 5.6, "a 2 2.45 2 2.45 0 360 m 4 4.9 l 4 -2"},
    {'r', 3.5, "m 0 0 l 0 4.9 m 0 2.8 a 1.8 2.8 1.8 2 180 75"},
    {'s', 4.7, "a 1.7 3.65 1.5 1.25 40 270 a 1.7 1.2 1.7 1.2 90 -140"},
    {'t', 3.6, "m 1.1 6.6 l 1.1 1.3 a 2.2 1.3 1.1 1.3 180 285 m 0 4.8 l 2.5 4.8"},
    {'u', 5.3, "m 0 4.9 l 0 1.9 a 1.8 1.9 1.8 1.9 180 360 m 3.6 4.9 l 3.6 0"},
    {'v', 4.9, "m 0 4.9 l 1.9 0 l 3.8 4.9"},
    {'w', 6.8, "m 0 4.9 l 1.4 0 l 2.8 4.2 l 4.2 0 l 5.6 4.9"},
    {'x', 4.7, "m 0 0 l 3.6 4.9 m 0 4.9 l 3.6 0"},
    {'y', 4.9, "m 0 4.9 l 1.95 .2 m 3.8 4.9 l 1.2 -2"},
    {'z', 4.8, "m 0 4.9 l 3.5 4.9 l 0 0 l 3.5 0"},
    {'.', 2, "m 0 0 l 0 .15"},
    {',', 2.1, "m .3 .15 l -.1 -1.3"},
    {':', 2, "m 0 0 l 0 .15 m 0 4.3 l 0 4.45"},
    {'-', 3.7, "m 0 2.7 l 2.4 2.7"},
    {'+', 4.9, "m 0 2.7 l 3.6 2.7 m 1.8 .9 l 1.8 4.5"},
    {'=', 4.9, "m 0 1.8 l 3.6 1.8 m 0 3.6 l 3.6 3.6"},
    {'/', 4, "m 0 -.6 l 2.8 7.4"},
    {'(', 2.5, "a 2.6 2.8 2.4 5 130 230"},
    {')', 2.6, "a -1 2.8 2.4 5 50 -50"},
    {'%', 7.4, "a 1.2 5.6 1.2 1.4 0 360 m 6.2 1.4 a 5 1.4 1.2 1.4 0 360 m 5 7 l 1.2 0"},
    {'_', 5, "m 0 -1.2 l 4 -1.2"},
    {kPlusMinus, 4.9, "m 0 3.3 l 3.6 3.3 m 1.8 1.5 l 1.8 5.1 m 0 0 l 3.6 0"},
    {kBox, 5.4, "m 0 0 l 0 7 l 4 7 l 4 0 l 0 0"},
};

const Glyph& glyph_of(char letter) {
  const Glyph* box = nullptr;
  for (const Glyph& glyph : kGlyphs) {
    if (glyph.letter == letter) return glyph;
    if (glyph.letter == kBox) box = &glyph;
  }
  return *box;
}

class Pen {
 public:
  Pen(double left, TextStrokes& out) : left_(left), out_(out) {}

  void draw(const char* path) {
    while (const char command = next_command(path)) {
      if (command == 'm') {
        down_ = false;
        at_ = {number(path), 0};
        at_.y = number(path);
      } else if (command == 'l') {
        const double x = number(path);
        line_to({x, number(path)});
      } else {
        arc(path);
      }
    }
  }

 private:
  static char next_command(const char*& path) {
    while (*path == ' ') ++path;
    return *path ? *path++ : '\0';
  }

  static double number(const char*& path) {
    char* end = nullptr;
    const double value = std::strtod(path, &end);
    path = end;
    return value;
  }

  void line_to(Point to) {
    if (!down_) out_.strokes.push_back({placed(at_)});
    out_.strokes.back().push_back(placed(to));
    at_ = to;
    down_ = true;
  }

  void arc(const char*& path) {
    double value[6];
    for (double& each : value) each = number(path);
    const auto [cx, cy, rx, ry, from, to] = value;
    constexpr int kPieces = 24;
    for (int i = 0; i <= kPieces; ++i) {
      const double angle = (from + (to - from) * i / kPieces) * std::numbers::pi / 180;
      const Point point{cx + rx * std::cos(angle), cy + ry * std::sin(angle)};
      if (i == 0 && !down_) at_ = point;
      line_to(point);
    }
  }

  Point placed(Point point) const {
    return {(left_ + point.x) / kUnitsPerEm, -point.y / kUnitsPerEm};
  }

  double left_;
  TextStrokes& out_;
  Point at_;
  bool down_ = false;
};

}  // namespace

TextStrokes text_strokes(std::string_view text) {
  TextStrokes out;
  double left = 0.4;
  for (std::size_t i = 0; i < text.size(); ++i) {
    char letter = text[i];
    if (text.substr(i, 2) == "\xC2\xB1") {
      letter = kPlusMinus;
      ++i;
    }
    const Glyph& glyph = glyph_of(letter);
    Pen(left, out).draw(glyph.path);
    left += glyph.advance + kLetterSpace;
  }
  out.width = left / kUnitsPerEm;
  return out;
}

}  // namespace rl_es
