// The message of the InputError that a call ends with, which must be one line; "no error" where there is
// none.
#pragma once

#include <gtest/gtest.h>

#include <string>

#include "runtime/error.h"

namespace kva {

template <typename Call>
std::string error_of(Call call) {
  try {
    call();
  } catch (const InputError& error) {
    const std::string message = error.what();
    EXPECT_EQ(message.find('\n'), std::string::npos) << message;
    return message;
  }
  return "no error";
}

}  // namespace kva
