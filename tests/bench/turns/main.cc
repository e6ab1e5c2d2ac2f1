// Takes turns with other programs: reads commands on stdin and answers each with one line on stdout, until
// stdin ends. Fields are separated by tabs.
//
//   prepare ID OPERATION [NAME=VALUE ...]   ready [NAME=NUMBER ...]
//   turn ID                                 done seconds=NUMBER [NAME=NUMBER ...]
//   drop ID                                 dropped
//
// ready says what one turn amounts to, done how long it took and what was found.
// Where something fails the answer is: error MESSAGE. scripts/peers/worker.py speaks the same for the peers.
#include <fmt/format.h>

#include <cstdio>
#include <iostream>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "runtime/error.h"
#include "tests/bench/turns/turn.h"

namespace kva {
namespace {

using Fields = std::vector<std::string>;

Fields split(const std::string& line) {
  Fields fields(1);
  for (const char c : line) {
    if (c == '\t')
      fields.emplace_back();
    else
      fields.back() += c;
  }
  return fields;
}

TurnSettings settings_of(const Fields& fields, std::size_t first) {
  std::map<std::string, std::string> values;
  for (std::size_t i = first; i < fields.size(); ++i) {
    const std::size_t equals = fields[i].find('=');
    if (equals == std::string::npos)
      throw InputError(fmt::format("setting \"{}\": expected NAME=VALUE", fields[i]));
    values[fields[i].substr(0, equals)] = fields[i].substr(equals + 1);
  }
  return TurnSettings(std::move(values));
}

std::string spelled(const std::map<std::string, double>& numbers) {
  std::string fields;
  for (const auto& [name, value] : numbers) fields += fmt::format("\t{}={}", name, value);
  return fields;
}

std::unique_ptr<Turn> make_turn(const std::string& operation, const TurnSettings& settings) {
  for (const auto make : {make_analysis_turn, make_codec_turn, make_decoder_turn, make_probe_turn})
    if (auto turn = make(operation, settings)) return turn;
  throw InputError(fmt::format("operation \"{}\" is not known", operation));
}

class Server {
 public:
  std::string answer(const Fields& fields) {
    const std::string& command = fields[0];
    if (command == "prepare" && fields.size() >= 3) return prepare(fields);
    const auto found = fields.size() == 2 ? turns_.find(fields[1]) : turns_.end();
    if (found == turns_.end()) throw InputError("expected prepare, or turn or drop of what is prepared");
    if (command == "turn") return turn(*found->second);
    if (command != "drop") throw InputError(fmt::format("command \"{}\" is not known", command));
    turns_.erase(found);
    return "dropped";
  }

 private:
  std::string prepare(const Fields& fields) {
    turns_.erase(fields[1]);  // its memory first
    const auto& turn = turns_[fields[1]] = make_turn(fields[2], settings_of(fields, 3));
    return "ready" + spelled(turn->facts);
  }

  static std::string turn(Turn& turn) {
    const double seconds = turn.seconds();
    return fmt::format("done\tseconds={:.9f}", seconds) + spelled(turn.found);
  }

  std::map<std::string, std::unique_ptr<Turn>> turns_;
};

}  // namespace

const std::string& TurnSettings::text(const std::string& name) const {
  const auto found = values_.find(name);
  if (found == values_.end()) throw InputError(fmt::format("setting {}: expected, not given", name));
  return found->second;
}

std::string TurnSettings::text_or(const std::string& name, const std::string& otherwise) const {
  return values_.count(name) ? text(name) : otherwise;
}

int64_t TurnSettings::number(const std::string& name) const {
  const std::string& value = text(name);
  std::size_t used = 0;
  int64_t number = 0;
  try {
    number = std::stoll(value, &used);
  } catch (const std::exception&) {
    used = 0;
  }
  if (used == 0 || used != value.size() || number < 0)
    throw InputError(fmt::format("setting {}: expected a number, found \"{}\"", name, value));
  return number;
}

int64_t TurnSettings::number_or(const std::string& name, int64_t otherwise) const {
  return values_.count(name) ? number(name) : otherwise;
}

}  // namespace kva

int main() {
  kva::Server server;
  for (std::string line; std::getline(std::cin, line);) {
    std::string answer;
    try {
      answer = server.answer(kva::split(line));
    } catch (const std::exception& error) {
      answer = fmt::format("error\t{}", error.what());
    }
    fmt::print("{}\n", answer);
    std::fflush(stdout);
  }
  return 0;
}
