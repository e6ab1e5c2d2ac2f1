// What a recipe would store of a page, without pages: asked before anything runs, where a device has to read
// it.
#pragma once

#include "compressors/recipe.h"
#include "compressors/step.h"

namespace kva {

// Takes a page through the statement's steps, made anew, as Step::outline() has them. Throws InputError,
// naming the pipeline and the codec, for what the device that holds the cache's pages cannot read, and as the
// steps do. Nothing stays of it.
void expect_readable(const Statement& statement, const StepContext& context);

}  // namespace kva
