/* inet, cidr -> str, as Django registers them.
 * Binary (network_send): family (2 or 3), prefix length, is_cidr, number of
 * address bytes, the address. */
#include "row/row.h"

#include <arpa/inet.h>

enum {
    FAMILY_INET = 2,
    FAMILY_INET6 = 3
};

/* The server prints an embedded IPv4 tail and the "::" as BSD's inet_net_ntop
 * does, which glibc's inet_ntop follows. */
PyObject *
vnl_inet_str_binary(vnl_decode_ctx *ctx, uint32_t oid, const char *data, int len)
{
    char text[INET6_ADDRSTRLEN + 8];
    int family, prefix, size;
    int full;

    if (len < 4) {
        return vnl_row_bad(ctx, "inet", 1, data, len);
    }
    family = (unsigned char)data[0];
    prefix = (unsigned char)data[1];
    size = (unsigned char)data[3];
    full = family == FAMILY_INET ? 32 : 128;
    if ((family != FAMILY_INET && family != FAMILY_INET6) || size != full / 8 || len != 4 + size ||
        prefix > full ||
        inet_ntop(family == FAMILY_INET ? AF_INET : AF_INET6, data + 4, text, INET6_ADDRSTRLEN) == NULL) {
        return vnl_row_bad(ctx, "inet", 1, data, len);
    }
    if (prefix != full || oid == VNL_OID_CIDR) {
        size_t used = strlen(text);
        snprintf(text + used, sizeof(text) - used, "/%d", prefix);
    }
    return PyUnicode_FromString(text);
}
