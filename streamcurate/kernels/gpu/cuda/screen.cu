// Scores to candidates; kernels/gpu/bound.py has the derivation and the names, kernels/gpu/screen.py the order of the
// launches. Matrices whose second index is the row of the tile are read by neighbouring threads side by side.

// Columns that share an error bound and one minimum.
#define GROUP 16
// Most groups of a tile that one thread looks at: a tile has up to GROUP x PER_THREAD x (THREADS / 32) columns.
#define PER_THREAD 8

// E of the derivation for a row of reach ``a`` and slack ``r``, and columns of norm ``b`` and residual ``s`` at most.
static __device__ __forceinline__ double score_error(
    double a, double r, double b, double s, double product_term, double norm_term, double formula_term,
    double tiny_term) {
    double constant = (norm_term + formula_term) * b * b + tiny_term * (1.0 + b) + 2.002 * r * b;
    double linear = (product_term + 2.0 * formula_term) * b + tiny_term + 2.002 * s;
    return formula_term * a * a + linear * a + constant;
}

// One tile of scores, of rows ``start`` to ``start`` + ``some``: for each row the least upper bound of any score so far, and onto its list whatever can still win.
// A block takes 32 rows and all columns, so that one reading of the scores does; what it reads a second time is the few
// groups that hold a candidate. ``length`` counts on where a list has no room.
extern "C" __global__ void screen(
    const float* scores, const float* norms, const int* order, const double* bounds, const double* residuals,
    const double* reach, const double* slack, const float* gain, long long groups, long long start, long long some,
    long long count, long long room, double product_term, double norm_term, double formula_term, double tiny_term,
    long long* upper, int* found, double* lower, int* length) {
    ONCE_A_BLOCK
    __shared__ double highs[THREADS], limits[32];
    __shared__ int lengths[32];
    OWN(float, minima)[PER_THREAD];
    long long first = start + (long long)blockIdx.x * 32, end = start + some;
    EACH_THREAD(t) {
        long long i = first + t % 32;
        highs[t] = __longlong_as_double(0x7FF0000000000000LL);
        if (i >= end) continue;
        double a = reach[i], r = slack[i], high = highs[t];
        float times = gain[i];
#pragma unroll
        for (int m = 0; m < PER_THREAD; m++) {
            long long g = m * (THREADS / 32) + t / 32;
            if (g >= groups) continue;
            const float* column = scores + g * GROUP * some + i - start;
            float smallest = __uint_as_float(0x7F800000u);
#pragma unroll
            for (int c = 0; c < GROUP; c++) {
                float score = __fmaf_rn(column[c * some], times, norms[g * GROUP + c]);
                smallest = score < smallest ? score : smallest;
            }
            MY(minima, t)[m] = smallest;
            double most = (double)smallest + score_error(
                a, r, bounds[g], residuals[g], product_term, norm_term, formula_term, tiny_term);
            high = most < high ? most : high;
        }
        highs[t] = high;
    }
    EACH_THREAD(t) {
        long long i = first + t;
        if (t >= 32 || i >= end) continue;
        double high = from_ordered(upper[i]);
        for (int s = t; s < THREADS; s += 32) high = highs[s] < high ? highs[s] : high;
        upper[i] = ordered(high);
        limits[t] = high;
        // Drop what can no longer win from lists more than half full. One that overflowed stays so: its row is crowded.
        int held = length[i];
        if (held > room / 2 && held <= room) {
            int kept = 0;
            for (long long p = 0; p < held; p++) {
                if (!(lower[p * count + i] <= high)) continue;
                found[kept * count + i] = found[p * count + i];
                lower[kept * count + i] = lower[p * count + i];
                kept++;
            }
            held = kept;
        }
        lengths[t] = held;
    }
    EACH_THREAD(t) {
        long long i = first + t % 32;
        if (i >= end || lengths[t % 32] > room) continue;
        double a = reach[i], r = slack[i], high = limits[t % 32];
        float times = gain[i];
#pragma unroll
        for (int m = 0; m < PER_THREAD; m++) {
            long long g = m * (THREADS / 32) + t / 32;
            if (g >= groups) continue;
            double error =
                score_error(a, r, bounds[g], residuals[g], product_term, norm_term, formula_term, tiny_term);
            if (!((double)MY(minima, t)[m] - error <= high)) continue;
            const float* column = scores + g * GROUP * some + i - start;
            for (int c = 0; c < GROUP; c++) {
                double low = (double)__fmaf_rn(column[c * some], times, norms[g * GROUP + c]) - error;
                if (!(low <= high) || order[g * GROUP + c] < 0) continue;
                long long slot = atomicAdd(lengths + t % 32, 1);
                if (slot >= room) continue;
                found[slot * count + i] = order[g * GROUP + c];
                lower[slot * count + i] = low;
            }
        }
    }
    EACH_THREAD(t) {
        if (t < 32 && first + t < end) length[first + t] = lengths[t];
    }
}
