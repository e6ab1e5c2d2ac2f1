// Numbers and names as readers of a report see them, and the escapes of the formats that we write.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace kva {

// "–" for NaN, in all of these.
std::string format_count(double value);                        // 12,345
std::string format_bytes(double bytes);                        // 512 B, 1.50 MiB
std::string format_share(double share, int digits = 1);        // 0.1234 -> 12.3%
std::string format_number(double value, int digits = 3);       // fixed digits, "-0.000" written as "0.000"
std::string format_significant(double value, int digits = 3);  // significant digits: 0.0123, 1.2e-06
std::string format_change(double share);     // of two digits, with its sign: -0.0123 -> -1.23%
std::string format_seconds(double seconds);  // 0.42 s, 12.3 s, 3 min 20 s, 2 h 5 min
std::string format_rate(double per_second);  // 950, 12.3 k, 4.56 M, 7.89 G

// One line of printable text, at most max_bytes long (cut at a character, with an ellipsis): control
// characters become spaces.
std::string one_line(std::string_view text, std::size_t max_bytes = 200);

std::string escape_html(std::string_view text);      // for text and for double-quoted attributes
std::string escape_markdown(std::string_view text);  // for a table cell or a paragraph, on one line
// A single-quoted gnuplot string: nothing inside is expanded. Use with `noenhanced`.
std::string quote_gnuplot(std::string_view text);
// JSON text made safe inside a <script> element.
std::string escape_script_json(std::string_view json);

std::string base64_encode(std::string_view bytes);
// The bytes, or false where the text is no canonical base64 (padding included).
bool base64_decode(std::string_view text, std::string& bytes);

}  // namespace kva
