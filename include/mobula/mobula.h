// Mobula: tasks, actors and shared-memory objects on a dynamic task graph.
//
//   int square(int x) { return x * x; }
//   int main(int argc, char** argv) {
//     mobula::Session session(argc, argv);
//     mobula::Ref<int> a = mobula::remote<square>(7);
//     return mobula::get(mobula::remote<square>(a)) == 2401 ? 0 : 1;
//   }
#pragma once

#include "mobula/actor.h"
#include "mobula/codec.h"
#include "mobula/error.h"
#include "mobula/export.h"
#include "mobula/log.h"
#include "mobula/memory.h"
#include "mobula/mesh.h"
#include "mobula/metrics.h"
#include "mobula/object.h"
#include "mobula/options.h"
#include "mobula/placement_group.h"
#include "mobula/progress.h"
#include "mobula/ref.h"
#include "mobula/reply.h"
#include "mobula/result.h"
#include "mobula/scheduling.h"
#include "mobula/session.h"
#include "mobula/stream.h"
#include "mobula/task.h"
#include "mobula/then.h"
#include "mobula/view.h"
