/* The far end of an LB node's cable: passes every packet. Without an XDP program there, the kernel
 * drops what the near end's program sends by XDP_TX (drivers/net/veth.c, veth_xdp_flush). */
#define XDP_PASS 2

__attribute__((section("xdp"), used)) int wire(void *packet)
{
	(void)packet;
	return XDP_PASS;
}
