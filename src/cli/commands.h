// The commands of `mobula`. Each prints, and returns the exit code, or throws UsageError (exit code
// 2), NotFound (3) or any other exception (1).
#pragma once

#include "cli/arguments.h"

namespace mobula::cli {

int start(const Arguments& arguments);
int stop(const Arguments& arguments);
int status(const Arguments& arguments);
int list(const Arguments& arguments);
int memory(const Arguments& arguments);
int metrics(const Arguments& arguments);
int logs(const Arguments& arguments);
int why(const Arguments& arguments);

}  // namespace mobula::cli
