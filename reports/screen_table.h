// Tables on a terminal.
#pragma once

#include "reports/screen.h"
#include "reports/tables.h"

namespace kva {

// Aligned columns, without title and caption; the first row is plain, the names of others are bold. A name
// that is too long for the first column stands on a line of its own above its numbers.
void add_table(const Table& table, Screen& screen);

}  // namespace kva
