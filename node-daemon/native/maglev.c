/* Fills a weighted Maglev table (Eisenbud et al., "Maglev", NSDI 2016, 3.4).
 *
 * Backends take turns. In its turn a backend takes the next slot of its own permutation that is
 * still free. Weights decide how often a backend has its turn: the n-th (from 0) is due at time
 * n / weight, ties in the order of the array. So everyone with a weight has its first turn before
 * anyone has a second, and from there on turns are in proportion.
 *
 * Part of TABLE_VERSION: another order of turns is another table.
 */
#include <errno.h>
#include <stdint.h>
#include <stdlib.h>

struct backend {
	uint32_t index;	 /* in the caller's arrays */
	uint32_t next;	 /* the slot its permutation is at */
	uint32_t skip;
	uint32_t weight; /* 1..65535 */
	uint32_t turns;	 /* that it has had */
};

/* Whose turn is due first. No overflow: turns < 2^32, weight < 2^16. */
static int before(const struct backend *a, const struct backend *b)
{
	uint64_t due_a = (uint64_t)a->turns * b->weight;
	uint64_t due_b = (uint64_t)b->turns * a->weight;

	return due_a != due_b ? due_a < due_b : a->index < b->index;
}

/* A binary heap whose top has been given a later turn is put in order again. */
static void sink(struct backend *heap, uint32_t count)
{
	struct backend moving = heap[0];
	uint32_t hole = 0;

	for (;;) {
		uint32_t child = 2 * hole + 1;

		if (child >= count)
			break;
		if (child + 1 < count && before(&heap[child + 1], &heap[child]))
			child++;
		if (!before(&heap[child], &moving))
			break;
		heap[hole] = heap[child];
		hole = child;
	}
	heap[hole] = moving;
}

static void advance(struct backend *backend, uint32_t size)
{
	backend->next += backend->skip;
	if (backend->next >= size)
		backend->next -= size;
}

/* The backends that have a weight. All are due at time 0, so the array's order is a heap. */
static uint32_t start(struct backend *heap, const uint64_t *hashes, const uint32_t *weights,
		      uint32_t count, uint32_t size)
{
	uint32_t kept = 0;

	for (uint32_t i = 0; i < count; i++) {
		if (!weights[i])
			continue;
		heap[kept++] = (struct backend){
			.index = i,
			.next = hashes[2 * i] % size,
			.skip = hashes[2 * i + 1] % (size - 1) + 1,
			.weight = weights[i],
		};
	}
	return kept;
}

/* hashes: two per backend; weights: 0..65535, 0 takes no turn; size: a prime below 2^31, or
 * permutations would not reach every slot and this would not end; table: size words, which get the
 * index of a backend, -1 where nobody has a weight. Returns 0 or -ENOMEM. */
int maglev_fill(const uint64_t *hashes, const uint32_t *weights, uint32_t count, uint32_t size,
		int32_t *table)
{
	struct backend *heap = malloc((count ? count : 1) * sizeof(*heap));
	uint32_t kept;

	if (!heap)
		return -ENOMEM;
	kept = start(heap, hashes, weights, count, size);
	for (uint32_t slot = 0; slot < size; slot++)
		table[slot] = -1;
	for (uint32_t filled = 0; kept && filled < size; filled++) {
		struct backend *turn = heap;

		while (table[turn->next] >= 0)
			advance(turn, size);
		table[turn->next] = (int32_t)turn->index;
		advance(turn, size);
		turn->turns++;
		sink(heap, kept);
	}
	free(heap);
	return 0;
}
