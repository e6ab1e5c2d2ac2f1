// kvanalyze tokenize: a text's token ids, on one line.
#include <fmt/format.h>
#include <unistd.h>

#include <cstdio>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "cli/command.h"
#include "runtime/error.h"
#include "runtime/io/file.h"
#include "runtime/model/model_folder.h"
#include "runtime/model/tokenizer.h"

namespace kva::cli {
namespace {

struct TokenizeOptions {
  std::string model;
  std::string file;
  std::string text;
  bool no_special = false;
  bool chat = false;
};

std::string read_stdin() {
  std::string text;
  char buffer[1 << 16];
  while (true) {
    const ssize_t bytes = ::read(STDIN_FILENO, buffer, sizeof buffer);
    if (bytes < 0) throw InputError("stdin: cannot be read");
    if (bytes == 0) return text;
    text.append(buffer, static_cast<std::size_t>(bytes));
    if (static_cast<int64_t>(text.size()) > Tokenizer::kMaxTextBytes)
      throw InputError(fmt::format("stdin: expected at most {} bytes, found more", Tokenizer::kMaxTextBytes));
  }
}

void tokenize(const TokenizeOptions& options, const std::string& text) {
  // Not find_model() for a folder: without weights and configuration it still has a tokenizer.
  const bool is_folder = std::filesystem::is_directory(options.model);
  const Tokenizer tokenizer = Tokenizer::load(is_folder ? options.model : find_model(options.model).path);
  const std::vector<int32_t> ids = options.chat
                                       ? tokenizer.encode_chat(text)
                                       : tokenizer.encode(text, {.add_special = !options.no_special});
  fmt::print("{}\n", fmt::join(ids, " "));
}

}  // namespace

void add_tokenize(CLI::App& app) {
  auto options = std::make_shared<TokenizeOptions>();
  CLI::App* command = app.add_subcommand(
      "tokenize", "A text's token ids on one line; needs only a model's config and tokenizer files");
  command->add_option("-m,--model", options->model, "A folder in Hugging Face layout, an alias or a hub id")
      ->type_name("NAME")
      ->required();
  CLI::Option* file =
      command->add_option("--file", options->file, "File with the text (default: standard input)")
          ->type_name("FILE");
  CLI::Option* text = command->add_option("--text", options->text, "The text itself")->excludes(file);
  command->add_flag("--no-special", options->no_special,
                    "Without the tokens added around a text, such as BOS");
  command->add_flag("--chat", options->chat, "The text as a user's message in the model's chat template");
  command->callback([options, file, text] {
    if (text->count() > 0) return tokenize(*options, options->text);
    tokenize(*options,
             file->count() > 0 ? read_text_file(options->file, Tokenizer::kMaxTextBytes) : read_stdin());
  });
}

}  // namespace kva::cli
