#include "base/tensor.h"

#include <string.h>

const struct qp_dtype_info qp_dtype_info[QP_DT_COUNT] = {
#define X(id, name, elems, bytes) {name, elems, bytes},
    QP_DTYPES(X)
#undef X
};

int qp_dtype_by_name(const char *name)
{
    for (int i = 0; i < QP_DT_COUNT; i++)
        if (!strcmp(qp_dtype_info[i].name, name))
            return i;
    return -1;
}
