// A draft's streams that become coefficients on a group's basis.
#pragma once

#include "compressors/basis_group.h"
#include "compressors/draft.h"

namespace kva {

// Whether some cell of the group is still to be stored, and as it was read, and all hold the same tokens.
bool takes_basis(const Draft& draft, const BasisGroup& group);

// Puts the group's streams that take one on the basis. Of several cells, their coefficients become a stream
// of their own behind the others, on which the cells build; unless it is unread, it has no rows yet.
void put_on_basis(Draft& draft, const BasisGroup& group, const Basis& basis);

}  // namespace kva
