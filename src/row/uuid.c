/* uuid -> uuid.UUID, made without its slow __init__. */
#include "row/row.h"

PyObject *
vnl_uuid_text(vnl_decode_ctx *ctx, uint32_t oid, const char *data, int len)
{
    unsigned char bytes[16] = {0};
    int digits = 0;

    for (int i = 0; i < len; i++) {
        char c = data[i];
        int value;
        if (c == '-') {
            continue;
        }
        value = vnl_hex_value(c);
        if (value < 0 || digits == 32) {
            return vnl_row_bad(ctx, "uuid", 0, data, len);
        }
        bytes[digits / 2] = (unsigned char)(bytes[digits / 2] << 4 | value);
        digits++;
    }
    return digits == 32 ? vnl_uuid_new(&ctx->st->uuids, bytes) : vnl_row_bad(ctx, "uuid", 0, data, len);
}

PyObject *
vnl_uuid_binary(vnl_decode_ctx *ctx, uint32_t oid, const char *data, int len)
{
    return len == 16 ? vnl_uuid_new(&ctx->st->uuids, (const unsigned char *)data)
                     : vnl_row_bad(ctx, "uuid", 1, data, len);
}
