/* inet, cidr -> str, as Django registers them.
 * Binary (network_send): family (2 or 3), prefix length, is_cidr, number of
 * address bytes, the address. */
#include "row/row.h"

#include <arpa/inet.h>

enum {
    FAMILY_INET = 2,
    FAMILY_INET6 = 3
};

static char *
put_number(char *out, unsigned value)
{
    if (value >= 100) {
        *out++ = (char)('0' + value / 100);
    }
    if (value >= 10) {
        *out++ = (char)('0' + value / 10 % 10);
    }
    *out++ = (char)('0' + value % 10);
    return out;
}

/* glibc's inet_ntop goes through sprintf for IPv4, ten times slower. */
static char *
put_ipv4(char *out, const char *address)
{
    for (int i = 0; i < 4; i++) {
        out = put_number(out, (unsigned char)address[i]);
        *out++ = '.';
    }
    return out - 1;
}

/* The server prints an embedded IPv4 tail and the "::" as BSD's inet_net_ntop
 * does, which glibc's inet_ntop follows. */
PyObject *
vnl_inet_str_binary(vnl_decode_ctx *ctx, uint32_t oid, const char *data, int len)
{
    char text[INET6_ADDRSTRLEN + 8];
    char *end = text;
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
        prefix > full) {
        return vnl_row_bad(ctx, "inet", 1, data, len);
    }
    if (family == FAMILY_INET) {
        end = put_ipv4(text, data + 4);
    }
    else if (inet_ntop(AF_INET6, data + 4, text, INET6_ADDRSTRLEN) == NULL) {
        return vnl_row_bad(ctx, "inet", 1, data, len);
    }
    else {
        end += strlen(text);
    }
    if (prefix != full || oid == VNL_OID_CIDR) {
        *end++ = '/';
        end = put_number(end, (unsigned)prefix);
    }
    return PyUnicode_FromKindAndData(PyUnicode_1BYTE_KIND, text, end - text);
}
