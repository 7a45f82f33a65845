// The rows of `mobula status` and `mobula list`. `exact`: numbers as they are, for scripts.
#pragma once

#include <memory>
#include <vector>

#include "cli/output.h"
#include "cli/session_reader.h"

namespace mobula::cli {

using Sessions = std::vector<std::unique_ptr<SessionReader>>;

Table nodes_table(bool exact);
Table jobs_table(const Sessions& sessions, bool exact);

}  // namespace mobula::cli
