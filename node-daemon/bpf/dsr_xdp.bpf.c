/* L2 direct server return: a frame for a frontend leaves with the MAC of the flow's backend, the
 * packet in it untouched. What is not ours goes up the stack as it came. */
#include <stddef.h>

#include <linux/bpf.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "director.h"

SEC("xdp.frags")
int dsr_xdp(struct xdp_md *ctx)
{
	return director(ctx);
}

char LICENSE[] SEC("license") = "Apache-2.0";
