// The certified search; kernels/cpu/nearest.py has the derivation and the names, kernels/gpu/nearest.py the order of
// the launches. Matrices whose second index is the row of the tile are read by neighbouring threads side by side.

// Columns that share an error bound and one minimum.
#define GROUP 16

// A row's reach, what its answer so far means as a score, and whether it is too far out for float32 scores.
template <typename Row>
static __device__ __forceinline__ void bounds_of_row(
    const Row* rows, const double* norms, long long unit, long long count, long long dims, const double* origin,
    double scale, double farthest, const int* labels, const double* values, double* reach, long long* upper,
    unsigned char* wild) {
    long long i = thread_number();
    if (i >= count) return;
    double norm = norm_of(norms, i, unit);
    double squared = 0.0;
    for (long long j = 0; j < dims; j++) {
        double a = (coordinate(rows, i * dims + j, unit, norm) - origin[j]) * scale;
        squared += a * a;
    }
    double bound = __dsqrt_rn(squared) * (1.0 + 1e-9) + 7.888609052210118e-31;  // 2^-100
    bool beyond = !(bound <= farthest);
    reach[i] = beyond ? 0.0 : bound;
    wild[i] = beyond ? 1 : 0;
    // 1e-9 covers the rounding on either side. No score concerns a wild row: nothing is low enough.
    double highest = __longlong_as_double(0x7FF0000000000000LL);
    if (labels[i] >= 0) {
        highest = values[i] * scale * scale * (1.0 + 1e-9) - squared * (1.0 - 1e-9) + 7.888609052210118e-31;
    }
    upper[i] = ordered(beyond ? -__longlong_as_double(0x7FF0000000000000LL) : highest);
}

// float32(scale (x - origin)), zeros for a wild row.
template <typename Row>
static __device__ __forceinline__ void shifted_coordinate(
    const Row* rows, const double* norms, long long unit, long long count, long long dims, const double* origin,
    double scale, const unsigned char* wild, float* shifted) {
    long long place = thread_number();
    if (place >= count * dims) return;
    long long i = place / dims;
    double value = (coordinate(rows, place, unit, norm_of(norms, i, unit)) - origin[place % dims]) * scale;
    shifted[place] = wild[i] ? 0.0f : __double2float_rn(value);
}

// E of the derivation for a row of reach ``a`` and columns of norm ``b`` at most.
static __device__ __forceinline__ double score_error(
    double a, double b, double product_term, double norm_term, double formula_term, double tiny_term) {
    double constant = (norm_term + formula_term) * b * b + tiny_term * (1.0 + b);
    double linear = (product_term + 2.0 * formula_term) * b + tiny_term;
    return formula_term * a * a + linear * a + constant;
}

// Smallest score of each group of columns for each row, and each row's least upper bound of any score.
extern "C" __global__ void group_minima(
    const float* scores, const float* norms, const double* bounds, const double* reach, long long groups,
    long long count, double product_term, double norm_term, double formula_term, double tiny_term, float* minima,
    long long* upper) {
    long long place = thread_number();
    if (place >= groups * count) return;
    long long g = place / count, i = place % count;
    float smallest = __uint_as_float(0x7F800000u);
    for (long long c = g * GROUP; c < (g + 1) * GROUP; c++) {
        float score = __fadd_rn(scores[c * count + i], norms[c]);
        smallest = score < smallest ? score : smallest;
    }
    minima[place] = smallest;
    double error = score_error(reach[i], bounds[g], product_term, norm_term, formula_term, tiny_term);
    long long highest = ordered((double)smallest + error);
    if (highest < upper[i]) atomicMin(upper + i, highest);
}

// Add the tile's possible winners to the rows' lists. ``length`` counts on where a list has no room.
extern "C" __global__ void collect(
    const float* minima, const float* scores, const float* norms, const int* order, const double* bounds,
    const double* reach, const long long* upper, long long groups, long long count, long long room,
    double product_term, double norm_term, double formula_term, double tiny_term, int* found, double* lower,
    int* length) {
    long long place = thread_number();
    if (place >= groups * count) return;
    long long g = place / count, i = place % count;
    if (length[i] > room) return;  // crowded already
    double highest = from_ordered(upper[i]);
    double error = score_error(reach[i], bounds[g], product_term, norm_term, formula_term, tiny_term);
    if (!((double)minima[place] - error <= highest)) return;
    for (long long c = g * GROUP; c < (g + 1) * GROUP; c++) {
        double low = (double)__fadd_rn(scores[c * count + i], norms[c]) - error;
        if (!(low <= highest) || order[c] < 0) continue;
        long long slot = atomicAdd(length + i, 1);
        if (slot < room) {
            found[slot * count + i] = order[c];
            lower[slot * count + i] = low;
        }
    }
}

// Drop what can no longer win from lists more than half full. A list that overflowed stays so: its row is crowded.
extern "C" __global__ void prune(
    const long long* upper, long long count, long long room, int* found, double* lower, int* length) {
    long long i = thread_number();
    if (i >= count || length[i] <= room / 2 || length[i] > room) return;
    double highest = from_ordered(upper[i]);
    int kept = 0;
    for (long long p = 0; p < length[i]; p++) {
        if (lower[p * count + i] <= highest) {
            found[kept * count + i] = found[p * count + i];
            lower[kept * count + i] = lower[p * count + i];
            kept++;
        }
    }
    length[i] = kept;
}

static __device__ __forceinline__ void take_better(double value, int number, double* best, int* label) {
    if (*label < 0 || value < *best || (value == *best && number < *label)) {
        *best = value;
        *label = number;
    }
}

// Evaluate the candidates left in each row's list. Crowded and wild rows are listed in ``pending`` instead.
template <typename Row>
static __device__ __forceinline__ void settle_row(
    const Row* rows, const double* norms, long long unit, long long count, long long dims, const float* centroids,
    const int* found, const double* lower, const int* length, const long long* upper, const unsigned char* wild,
    long long room, long long first_cluster, int* labels, double* values, int* pending, int* pending_count) {
    long long i = thread_number();
    if (i >= count) return;
    if (wild[i] || length[i] > room) {
        pending[atomicAdd(pending_count, 1)] = (int)i;
        return;
    }
    double highest = from_ordered(upper[i]), best = values[i], norm = norm_of(norms, i, unit);
    int label = labels[i];
    for (long long p = 0; p < length[i]; p++) {
        if (!(lower[p * count + i] <= highest)) continue;
        long long cluster = found[p * count + i];
        double value = formula(rows + i * dims, unit, norm, centroids + cluster * dims, dims);
        take_better(value, (int)(cluster + first_cluster), &best, &label);
    }
    labels[i] = label;
    values[i] = best;
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
    const int* part_labels, const double* part_values, long long chunks, const int* listed, long long count,
    long long first_cluster, int* labels, double* values) {
    long long p = thread_number();
    if (p >= count) return;
    long long i = listed[p];
    double best = values[i];
    int label = labels[i];
    for (long long chunk = 0; chunk < chunks; chunk++) {
        int cluster = part_labels[chunk * count + p];
        take_better(part_values[chunk * count + p], (int)(cluster + first_cluster), &best, &label);
    }
    labels[i] = label;
    values[i] = best;
}

#define SEARCH_KERNELS(Row, suffix)                                                                                   \
    extern "C" __global__ void row_bounds_##suffix(                                                                   \
        const Row* rows, const double* norms, long long unit, long long count, long long dims, const double* origin,  \
        double scale, double farthest, const int* labels, const double* values, double* reach, long long* upper,      \
        unsigned char* wild) {                                                                                        \
        bounds_of_row(                                                                                                \
            rows, norms, unit, count, dims, origin, scale, farthest, labels, values, reach, upper, wild);             \
    }                                                                                                                 \
    extern "C" __global__ void shift_rows_##suffix(                                                                   \
        const Row* rows, const double* norms, long long unit, long long count, long long dims, const double* origin,  \
        double scale, const unsigned char* wild, float* shifted) {                                                    \
        shifted_coordinate(rows, norms, unit, count, dims, origin, scale, wild, shifted);                             \
    }                                                                                                                 \
    extern "C" __global__ void settle_##suffix(                                                                       \
        const Row* rows, const double* norms, long long unit, long long count, long long dims,                        \
        const float* centroids, const int* found, const double* lower, const int* length, const long long* upper,     \
        const unsigned char* wild, long long room, long long first_cluster, int* labels, double* values,              \
        int* pending, int* pending_count) {                                                                           \
        settle_row(                                                                                                   \
            rows, norms, unit, count, dims, centroids, found, lower, length, upper, wild, room, first_cluster,        \
            labels, values, pending, pending_count);                                                                  \
    }                                                                                                                 \
    extern "C" __global__ void direct_##suffix(                                                                       \
        const Row* rows, const double* norms, long long unit, long long dims, const int* listed, long long count,     \
        const float* centroids, long long clusters, long long chunk, long long chunks, int* part_labels,              \
        double* part_values) {                                                                                        \
        best_of_chunk(                                                                                                \
            rows, norms, unit, dims, listed, count, centroids, clusters, chunk, chunks, part_labels, part_values);    \
    }

SEARCH_KERNELS(float, float32)
SEARCH_KERNELS(Half, float16)
