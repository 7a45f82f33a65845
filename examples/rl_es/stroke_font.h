// Decides how letters look in the PNG: as strokes, so that one small table serves every size
// and no font file has to be found.
#pragma once

#include <string_view>
#include <vector>

namespace rl_es {

struct Point {
  double x = 0;
  double y = 0;
};

// A line of text as strokes: one unit is the em, the baseline is y = 0, y grows downwards.
struct TextStrokes {
  std::vector<std::vector<Point>> strokes;
  double width = 0;
};

inline constexpr double kTextStrokeWidth = 0.085;  // em

// Knows ASCII letters, digits, common punctuation and the plus-minus sign in UTF-8; anything
// else becomes a box.
TextStrokes text_strokes(std::string_view text);

}  // namespace rl_es
