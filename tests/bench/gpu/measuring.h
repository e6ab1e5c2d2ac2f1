// How long the device takes for something, and what that is beside a limit of the same device: rows of tables
// in Markdown on stdout. Only in builds with CUDA; what fails there throws std::runtime_error.
#pragma once

#include <functional>
#include <string>

namespace kva {

// Median milliseconds of repeated calls by CUDA's events on the default stream, after a warm-up.
double median_ms(const std::function<void()>& body);

// GB/s of a copy on the device, counting bytes read and written.
double copy_rate();
// Floating-point operations a millisecond of a product of f16 numbers with f32 sums.
double product_rate();

// copy: what copy_rate() gave.
void print_row(const std::string& what, double bytes, double ms, double copy);
void print_share(const std::string& what, double ms, const std::string& limit, double limit_ms);

}  // namespace kva
