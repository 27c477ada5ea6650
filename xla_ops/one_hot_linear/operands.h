// The sizes of a call of one_hot_linear, for every platform.
#pragma once

#include "xla_ops/common/host_device.h"

namespace pjx {

// The table is [num_cells, num_codes, num_hidden].
struct OneHotSizes {
  int64_t num_rows, num_cells, num_codes, num_hidden;

  PJX_HD int64_t table() const { return num_cells * num_codes * num_hidden; }
};

}  // namespace pjx
