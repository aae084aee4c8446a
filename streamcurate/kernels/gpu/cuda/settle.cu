// What is left after screening goes through the formula: each row's candidates, or all centroids for the rows that
// screening cannot settle. The order of the launches is in kernels/gpu/nearest.py.

static __device__ __forceinline__ void take_better(double value, int number, double* best, int* label) {
    if (*label < 0 || value < *best || (value == *best && number < *label)) {
        *best = value;
        *label = number;
    }
}

// Evaluate the candidates left in each row's list, one of each row at a time. Crowded and wild rows are listed in
// ``pending`` instead.
template <typename Row>
static __device__ __forceinline__ void settle_rows(
    const Row* rows, const double* norms, long long unit, long long count, long long dims, const float* centroids,
    const int* found, const double* lower, const int* length, const long long* upper, const unsigned char* wild,
    long long room, long long first_cluster, int* labels, double* values, int* pending, int* pending_count) {
    ONCE_A_BLOCK
    CHAIN_MEMORY;
    __shared__ int more;
    OWN(int, next);
    long long first = (long long)blockIdx.x * THREADS;
    EACH_THREAD(t) {
        long long i = first + t;
        MY(next, t) = 0;
        if (i >= count) continue;
        if (wild[i] || length[i] > room) {
            pending[atomicAdd(pending_count, 1)] = (int)i;
            MY(next, t) = (int)room;
        }
    }
    for (;;) {
        EACH_THREAD(t) {
            if (t == 0) more = 0;
        }
        EACH_THREAD(t) {
            long long i = first + t;
            row_of[t] = -1;
            if (i >= count) continue;
            double highest = from_ordered(upper[i]);
            int p = MY(next, t), last = length[i];
            while (p < last && p < room && !(lower[p * count + i] <= highest)) p++;
            MY(next, t) = p + 1;
            if (p >= last || p >= room) continue;
            row_of[t] = i;
            cluster_of[t] = found[p * count + i];
            more = 1;
        }
        int some = more;
        MEET
        if (!some) break;
        chained_sums(rows, norms, unit, dims, row_of, cluster_of, centroids, squares, sums);
        EACH_THREAD(t) {
            if (row_of[t] < 0) continue;
            long long i = first + t;
            take_better(sums[t], (int)(cluster_of[t] + first_cluster), values + i, labels + i);
        }
    }
}

// The formula of listed rows with all centroids: the best of each chunk of clusters.
template <typename Row>
static __device__ __forceinline__ void best_of_chunk(
    const Row* rows, const double* norms, long long unit, long long dims, const int* listed, long long count,
    const float* centroids, long long clusters, long long chunk, long long chunks, int* part_labels,
    double* part_values) {
    long long place = thread_number();
    if (place >= chunks * count) return;
    long long i = listed[place % count], first = place / count * chunk;
    long long last = first + chunk < clusters ? first + chunk : clusters;
    const Row* row = rows + i * dims;
    double norm = norm_of(norms, i, unit), best = 0.0;
    int label = -1;
    for (long long k = first; k < last; k += 4) {
        long long k1 = k + 1 < last ? k + 1 : last - 1, k2 = k + 2 < last ? k + 2 : last - 1;
        long long k3 = k + 3 < last ? k + 3 : last - 1;
        double sums[4];
        formula_of_four(
            row, unit, norm, centroids + k * dims, centroids + k1 * dims, centroids + k2 * dims, centroids + k3 * dims,
            dims, sums);
        take_better(sums[0], (int)k, &best, &label);
        take_better(sums[1], (int)k1, &best, &label);
        take_better(sums[2], (int)k2, &best, &label);
        take_better(sums[3], (int)k3, &best, &label);
    }
    part_labels[place] = label;
    part_values[place] = best;
}

extern "C" __global__ void merge_chunks(
    const int* part_labels, const double* part_values, long long chunks, long long count, long long first_cluster,
    int* labels, double* values) {
    long long p = thread_number();
    if (p >= count) return;
    double best = values[p];
    int label = labels[p];
    for (long long chunk = 0; chunk < chunks; chunk++) {
        int cluster = part_labels[chunk * count + p];
        take_better(part_values[chunk * count + p], (int)(cluster + first_cluster), &best, &label);
    }
    labels[p] = label;
    values[p] = best;
}

// The listed rows, side by side.
template <typename Row>
static __device__ __forceinline__ void gather_coordinate(
    const Row* rows, const int* listed, long long count, long long dims, Row* gathered) {
    long long place = thread_number();
    if (place >= count * dims) return;
    gathered[place] = rows[(long long)listed[place / dims] * dims + place % dims];
}

#define SEARCH_KERNELS(Row, suffix)                                                                                   \
    extern "C" __global__ void settle_##suffix(                                                                       \
        const Row* rows, const double* norms, long long unit, long long count, long long dims,                        \
        const float* centroids, const int* found, const double* lower, const int* length, const long long* upper,     \
        const unsigned char* wild, long long room, long long first_cluster, int* labels, double* values,              \
        int* pending, int* pending_count) {                                                                           \
        settle_rows(                                                                                                  \
            rows, norms, unit, count, dims, centroids, found, lower, length, upper, wild, room, first_cluster,        \
            labels, values, pending, pending_count);                                                                  \
    }                                                                                                                 \
    extern "C" __global__ void direct_##suffix(                                                                       \
        const Row* rows, const double* norms, long long unit, long long dims, const int* listed, long long count,     \
        const float* centroids, long long clusters, long long chunk, long long chunks, int* part_labels,              \
        double* part_values) {                                                                                        \
        best_of_chunk(                                                                                                \
            rows, norms, unit, dims, listed, count, centroids, clusters, chunk, chunks, part_labels, part_values);    \
    }                                                                                                                 \
    extern "C" __global__ void gather_##suffix(                                                                       \
        const Row* rows, const int* listed, long long count, long long dims, Row* gathered) {                         \
        gather_coordinate(rows, listed, count, dims, gathered);                                                       \
    }

SEARCH_KERNELS(float, float32)
SEARCH_KERNELS(Half, float16)
