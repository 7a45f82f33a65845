// Ray's C++ API over Mobula: a program written for `#include <ray/api.h>` compiles unchanged when
// this folder is on the include path (CMake: link mobula::ray).
//
// The program is its own worker, as with mobula::Session: a worker runs main() up to ray::Init().
// So there is no library to build and no code_search_path to set; what is given there is loaded.
//
// What differs from Ray is told where it is declared. In short: values travel in Mobula's own
// encoding (MSGPACK_DEFINE is understood, other languages' values are not), a Ref may be passed for
// a parameter only if it is of the very type, calls of Python and Java throw RayException.
#pragma once

#include "api/config.h"
#include "api/logging.h"
#include "api/metric.h"
#include "api/object_ref.h"
#include "api/placement_group.h"
#include "api/remote.h"
#include "api/serialize.h"
