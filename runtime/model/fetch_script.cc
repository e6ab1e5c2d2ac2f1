#include "runtime/model/fetch_script.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstring>

#include "runtime/error.h"
#include "runtime/interrupt.h"

extern char** environ;

namespace kva {
namespace {

constexpr std::size_t kKeptBytes = 64 << 10;  // of the end of its output

// Starts the child with its stdout in a pipe; returns the end to read.
int start(const std::vector<std::string>& arguments, pid_t& child) {
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0)
    throw InputError(fmt::format("cannot make a pipe: {}", std::strerror(errno)));
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
  posix_spawn_file_actions_adddup2(&actions, ends[1], STDOUT_FILENO);
  std::vector<char*> raw;
  raw.reserve(arguments.size() + 1);
  for (const std::string& argument : arguments) raw.push_back(const_cast<char*>(argument.c_str()));
  raw.push_back(nullptr);
  posix_spawnattr_t attributes;
  posix_spawnattr_init(&attributes);
  set_child_signal_mask(attributes);
  const int error = ::posix_spawnp(&child, raw[0], &actions, &attributes, raw.data(), environ);
  posix_spawnattr_destroy(&attributes);
  posix_spawn_file_actions_destroy(&actions);
  ::close(ends[1]);
  if (error != 0) {
    ::close(ends[0]);
    throw InputError(fmt::format("cannot run {}: {}", arguments[0], std::strerror(error)));
  }
  return ends[0];
}

// The end of what the child writes, until it closes its stdout or Ctrl-C.
std::string read_end(int fd) {
  std::string text;
  char chunk[4096];
  while (!interrupt_requested()) {
    pollfd waiting{fd, POLLIN, 0};
    const int ready = ::poll(&waiting, 1, 100);
    if (ready <= 0) continue;
    const ssize_t got = ::read(fd, chunk, sizeof chunk);
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) break;
    text.append(chunk, static_cast<std::size_t>(got));
    if (text.size() > kKeptBytes) text.erase(0, text.size() - kKeptBytes);
  }
  return text;
}

std::string last_line(std::string text) {
  while (!text.empty() && (text.back() == '\n' || text.back() == '\r')) text.pop_back();
  const auto before = text.rfind('\n');
  return before == std::string::npos ? text : text.substr(before + 1);
}

}  // namespace

std::string last_line_of(const std::vector<std::string>& arguments) {
  pid_t child = 0;
  const int fd = start(arguments, child);
  std::string line = last_line(read_end(fd));
  ::close(fd);
  if (interrupt_requested()) ::kill(child, SIGTERM);
  int status = 0;
  while (::waitpid(child, &status, 0) < 0 && errno == EINTR) continue;
  throw_if_interrupted();
  if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
    throw InputError(line.empty() ? fmt::format("{} failed without a word", arguments.back()) : line);
  return line;
}

}  // namespace kva
