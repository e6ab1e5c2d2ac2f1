// What scripts/bench --peers has us do, one repetition at a time: an operation is prepared once and then
// repeated when told to, so that a script can let us and another program take turns.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>

namespace kva {

// What was asked for, by name. Throws InputError, naming it, where a setting is missing or no number.
class TurnSettings {
 public:
  explicit TurnSettings(std::map<std::string, std::string> values) : values_(std::move(values)) {}
  const std::string& text(const std::string& name) const;
  std::string text_or(const std::string& name, const std::string& otherwise) const;
  int64_t number(const std::string& name) const;
  int64_t number_or(const std::string& name, int64_t otherwise) const;

 private:
  std::map<std::string, std::string> values_;
};

// An operation that is ready. Between two calls it holds memory and nothing else: its threads sleep.
class Turn {
 public:
  virtual ~Turn() = default;
  // Does it once: how long it took.
  virtual double seconds() = 0;
  // What one turn amounts to ("bytes", "flops", "tokens", ...), for rates and limits.
  std::map<std::string, double> facts;
  // What the last turn found where that says whether two programs did the same ("inertia").
  std::map<std::string, double> found;
};

// Each knows the operations of its file; null for all others.
std::unique_ptr<Turn> make_analysis_turn(const std::string& operation, const TurnSettings& settings);
std::unique_ptr<Turn> make_codec_turn(const std::string& operation, const TurnSettings& settings);
std::unique_ptr<Turn> make_decoder_turn(const std::string& operation, const TurnSettings& settings);
std::unique_ptr<Turn> make_probe_turn(const std::string& operation, const TurnSettings& settings);

}  // namespace kva
