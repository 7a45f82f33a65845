// What a process of a runtime_env finds around it, as text: it is part of the key of a scheduling
// class, travels to the daemon and from there to the zygote, and only the new process reads it.
//
//   the working directory (absolute; empty: the driver's) \0 NAME=VALUE \0 NAME=VALUE \0 ..
#pragma once

#include <string>
#include <string_view>

#include "mobula/options.h"

namespace mobula::runtime {

// Empty: nothing is given. Throws Error, naming the option, for what cannot be.
std::string environment_text(const RuntimeEnv& environment, const std::string& option);

// Of the calling process. False with errno set: the working directory cannot be entered.
bool enter_environment(std::string_view text);

}  // namespace mobula::runtime
