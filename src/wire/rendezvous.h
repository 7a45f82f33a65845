// Where the processes of one user find each other: a folder of this user's alone, and in it one for
// each session and for each node that stays, with a lock and a socket.
//
//   PARENT/mobula-UID/      0700; PARENT is $MOBULA_TMPDIR, $XDG_RUNTIME_DIR or /tmp
//     node-NAME/            a node that stays: lock, socket, log
//     session-PID-RANDOM/   a session: lock, socket (for tools), logs/
//     leaving-PID-RANDOM/   either, while it is being removed
//
// A folder is somebody's as long as its lock is held. The kernel drops the lock however its holder
// ends, so what is stale is never taken for alive: no process number is read. The holder makes the
// folder and its lock while it holds the lock of the parent; at its end it renames the folder,
// empties it, and removes the lock last. So whoever holds the parent's lock and sees a folder
// without one, or with one that nobody holds, may remove it: killed at whatever step, its holder
// leaves one of these two.
//
// Folders are checked by descriptor and sockets are reached through it, so that nobody can swap a
// path under us; and both ends look at whose process the other one is.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace mobula::wire {

inline constexpr std::string_view kNodePrefix = "node-";
inline constexpr std::string_view kSessionPrefix = "session-";

// PARENT/mobula-UID.
std::string user_folder();

// The folder, which is this user's own and closed to all others (it is made so if `make`). Throws
// std::runtime_error with a sentence: it belongs to somebody else, or is no folder.
int open_own_folder(const std::string& path, bool make);

// Removes the folders in user_folder() whose holders have ended, and it, if it is empty then.
void remove_stale_folders() noexcept;

// The full paths of the folders in user_folder() that begin with `prefix` and are somebody's.
std::vector<std::string> living_folders(std::string_view prefix);

// Makes the socket of the folder and listens. Throws std::runtime_error.
int listen_in(const std::string& folder, const std::string& socket = "socket");
// The next connection of a process of this user; -1: none. Others are closed. It does not block.
int accept_own(int listening);
// Connects to the socket of the folder. Throws std::runtime_error.
int connect_in(const std::string& folder, const std::string& socket = "socket");

// The folder of the node that an address names: "auto" (the only one that runs here), a node's name
// or the path of its socket. Throws std::runtime_error that says which nodes there are.
std::string folder_of_node(const std::string& address);
// Letters, digits, '-', '_' and '.', at most 64, not "auto" or "local".
bool is_node_name(std::string_view name);

}  // namespace mobula::wire
