// Product and screening in one kernel, for devices of compute capability 9.0: what screen.cu does with a tile of scores
// in memory is done here with the accumulators in registers, so that no score is ever written. Same bound, same lists.
//
// A block takes PANEL_ROWS rows and meets the columns PANEL_COLUMNS at a time, 64 coordinates at a time. One thread
// asks the copy engine for panels, which lie in memory as shared memory wants them (half_place), so that a panel is
// one copy; ``stages`` panels are under way. Two warp groups of four warps multiply 64 rows each and look at their
// scores: while one looks, the other multiplies. Where ``resident``, the rows' panels stay in shared memory.

#define PANEL_ROWS 128
#define PANEL_COLUMNS 256
#define PANEL_ROW_BYTES (PANEL_ROWS * 128)
#define PANEL_COLUMN_BYTES (PANEL_COLUMNS * 128)
#define MOST_STAGES 6
#define WORKERS 8  // warps that multiply

#ifdef __CUDA_ARCH_FEAT_SM90_ALL

static __device__ __forceinline__ unsigned int shared_address(const void* place) {
    return (unsigned int)__cvta_generic_to_shared(place);
}

static __device__ __forceinline__ void barrier_of(unsigned int barrier, unsigned int arrivals) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(arrivals) : "memory");
}

static __device__ __forceinline__ void arrive(unsigned int barrier) {
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(barrier) : "memory");
}

static __device__ __forceinline__ void expect(unsigned int barrier, unsigned int bytes) {
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes) : "memory");
}

static __device__ __forceinline__ unsigned long long nanoseconds() {
    unsigned long long time;
    asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(time));
    return time;
}

// Wait for the phase of this parity to end. After two seconds something is broken: rather than hang, the kernel then
// runs to its end without waiting and says so; the caller takes another way.
static __device__ __forceinline__ void await(unsigned int barrier, unsigned int parity, bool* broken, int* failed) {
    unsigned long long start = 0;
    while (!*broken) {
        unsigned int done;
        asm volatile(
            "{\n.reg .pred done;\nmbarrier.try_wait.parity.shared::cta.b64 done, [%1], %2;\n"
            "selp.u32 %0, 1, 0, done;\n}\n"
            : "=r"(done)
            : "r"(barrier), "r"(parity)
            : "memory");
        if (done) return;
        unsigned long long now = nanoseconds();
        if (start == 0) start = now;
        if (now - start > 2000000000ULL) {
            *broken = true;
            *failed = 1;
        }
    }
}

static __device__ __forceinline__ void copy_panel(
    unsigned int to, const void* from, unsigned int bytes, unsigned int barrier) {
    asm volatile(
        "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(to),
        "l"(from), "r"(bytes), "r"(barrier)
        : "memory");
}

// A matrix of rows of 128 bytes in shared memory, 16-byte pieces exchanged within each 8 rows (1024 bytes).
static __device__ __forceinline__ unsigned long long panel_descriptor(unsigned int address) {
    unsigned long long described = (unsigned long long)((address & 0x3FFFFu) >> 4);
    described |= 1ULL << 16;            // leading dimension: not used with this exchange
    described |= (1024ULL >> 4) << 32;  // from 8 rows to the next 8
    described |= 1ULL << 62;            // exchange within 128 bytes
    return described;
}

// d = (keep ? d : 0) + 64 x 16 of the rows times 16 x 256 of the columns.
static __device__ __forceinline__ void multiply(
    float (&d)[128], unsigned long long left, unsigned long long right, int keep) {
    asm volatile(
        "{\n.reg .pred keep;\nsetp.ne.b32 keep, %130, 0;\n"
        "wgmma.mma_async.sync.aligned.m64n256k16.f32.f16.f16 {"
        "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
        "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "
        "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "
        "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63, "
        "%64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79, "
        "%80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95, "
        "%96, %97, %98, %99, %100, %101, %102, %103, %104, %105, %106, %107, %108, %109, %110, %111, "
        "%112, %113, %114, %115, %116, %117, %118, %119, %120, %121, %122, %123, %124, %125, %126, %127}, "
        "%128, %129, keep, 1, 1, 0, 0;\n}\n"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]), "+f"(d[4]), "+f"(d[5]),
          "+f"(d[6]), "+f"(d[7]), "+f"(d[8]), "+f"(d[9]), "+f"(d[10]), "+f"(d[11]),
          "+f"(d[12]), "+f"(d[13]), "+f"(d[14]), "+f"(d[15]), "+f"(d[16]), "+f"(d[17]),
          "+f"(d[18]), "+f"(d[19]), "+f"(d[20]), "+f"(d[21]), "+f"(d[22]), "+f"(d[23]),
          "+f"(d[24]), "+f"(d[25]), "+f"(d[26]), "+f"(d[27]), "+f"(d[28]), "+f"(d[29]),
          "+f"(d[30]), "+f"(d[31]), "+f"(d[32]), "+f"(d[33]), "+f"(d[34]), "+f"(d[35]),
          "+f"(d[36]), "+f"(d[37]), "+f"(d[38]), "+f"(d[39]), "+f"(d[40]), "+f"(d[41]),
          "+f"(d[42]), "+f"(d[43]), "+f"(d[44]), "+f"(d[45]), "+f"(d[46]), "+f"(d[47]),
          "+f"(d[48]), "+f"(d[49]), "+f"(d[50]), "+f"(d[51]), "+f"(d[52]), "+f"(d[53]),
          "+f"(d[54]), "+f"(d[55]), "+f"(d[56]), "+f"(d[57]), "+f"(d[58]), "+f"(d[59]),
          "+f"(d[60]), "+f"(d[61]), "+f"(d[62]), "+f"(d[63]), "+f"(d[64]), "+f"(d[65]),
          "+f"(d[66]), "+f"(d[67]), "+f"(d[68]), "+f"(d[69]), "+f"(d[70]), "+f"(d[71]),
          "+f"(d[72]), "+f"(d[73]), "+f"(d[74]), "+f"(d[75]), "+f"(d[76]), "+f"(d[77]),
          "+f"(d[78]), "+f"(d[79]), "+f"(d[80]), "+f"(d[81]), "+f"(d[82]), "+f"(d[83]),
          "+f"(d[84]), "+f"(d[85]), "+f"(d[86]), "+f"(d[87]), "+f"(d[88]), "+f"(d[89]),
          "+f"(d[90]), "+f"(d[91]), "+f"(d[92]), "+f"(d[93]), "+f"(d[94]), "+f"(d[95]),
          "+f"(d[96]), "+f"(d[97]), "+f"(d[98]), "+f"(d[99]), "+f"(d[100]), "+f"(d[101]),
          "+f"(d[102]), "+f"(d[103]), "+f"(d[104]), "+f"(d[105]), "+f"(d[106]), "+f"(d[107]),
          "+f"(d[108]), "+f"(d[109]), "+f"(d[110]), "+f"(d[111]), "+f"(d[112]), "+f"(d[113]),
          "+f"(d[114]), "+f"(d[115]), "+f"(d[116]), "+f"(d[117]), "+f"(d[118]), "+f"(d[119]),
          "+f"(d[120]), "+f"(d[121]), "+f"(d[122]), "+f"(d[123]), "+f"(d[124]), "+f"(d[125]),
          "+f"(d[126]), "+f"(d[127])
        : "l"(left), "l"(right), "r"(keep));
}

// Append what can still win among a thread's scores: those of one row, at places ``offset`` and ``offset`` + 1 of every
// four accumulators.
template <int offset>
static __device__ __forceinline__ void append_candidates(
    const float (&d)[128], float limit, double error, const int* order, int* length, long long i, long long count,
    long long room, int* found, double* lower) {
#pragma unroll
    for (int j = 0; j < 32; j++) {
#pragma unroll
        for (int c = 0; c < 2; c++) {
            float score = d[4 * j + offset + c];
            if (!(score <= limit)) continue;
            int cluster = order[8 * j + c];
            if (cluster < 0) continue;
            long long slot = atomicAdd(length, 1);
            if (slot >= room) continue;
            found[slot * count + i] = cluster;
            lower[slot * count + i] = (double)score - error;
        }
    }
}

#endif

extern "C" __global__ void __launch_bounds__(384, 1) fused_screen(
    const Half* rows, const Half* columns, const float* norms, const int* order, const double* bounds,
    const double* residuals, const double* reach, const double* slack, const float* gain, long long count,
    long long panels, long long pieces, long long stages, long long resident, long long room, double product_term,
    double norm_term, double formula_term, double tiny_term, long long* upper, int* found, double* lower, int* length,
    int* failed) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
    extern __shared__ unsigned char memory[];
    __shared__ __align__(8) unsigned long long barriers[2 * MOST_STAGES + 1];
    __shared__ int lengths[PANEL_ROWS];
    const unsigned int base = (shared_address(memory) + 1023u) & ~1023u;
    const unsigned int ring = base + (resident ? (unsigned int)pieces * PANEL_ROW_BYTES : 0u);
    const unsigned int stage_bytes = PANEL_COLUMN_BYTES + (resident ? 0u : PANEL_ROW_BYTES);
    const unsigned int full = shared_address(barriers), empty = full + 8 * MOST_STAGES;
    const unsigned int rows_there = full + 16 * MOST_STAGES;
    const int piece_count = (int)pieces, panel_count = (int)panels, stage_count = (int)stages;
    if (threadIdx.x == 0) {
        for (int s = 0; s < MOST_STAGES; s++) {
            barrier_of(full + 8 * s, 1);
            barrier_of(empty + 8 * s, WORKERS);
        }
        barrier_of(rows_there, 1);
        asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
        asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
    }
    if (threadIdx.x < PANEL_ROWS) lengths[threadIdx.x] = 0;
    __syncthreads();
    bool broken = false;
    if (threadIdx.x < 128) {
        asm volatile("setmaxnreg.dec.sync.aligned.u32 40;");
        if (threadIdx.x == 0) {
            const unsigned char* own = (const unsigned char*)rows + (long long)blockIdx.x * pieces * PANEL_ROW_BYTES;
            const unsigned char* others = (const unsigned char*)columns;
            if (resident) {
                expect(rows_there, (unsigned int)piece_count * PANEL_ROW_BYTES);
                for (int p = 0; p < piece_count; p++) {
                    const unsigned int place = base + p * PANEL_ROW_BYTES;
                    copy_panel(place, own + (long long)p * PANEL_ROW_BYTES, PANEL_ROW_BYTES, rows_there);
                }
            }
            int stage = 0;
            unsigned int parity = 1;  // nothing has been filled: the first wait for emptiness ends at once
            for (int panel = 0; panel < panel_count; panel++) {
                for (int p = 0; p < piece_count; p++) {
                    await(empty + 8 * stage, parity, &broken, failed);
                    if (broken) break;
                    const unsigned int place = ring + stage * stage_bytes;
                    expect(full + 8 * stage, stage_bytes);
                    copy_panel(place, others, PANEL_COLUMN_BYTES, full + 8 * stage);
                    if (!resident) {
                        copy_panel(
                            place + PANEL_COLUMN_BYTES, own + (long long)p * PANEL_ROW_BYTES, PANEL_ROW_BYTES,
                            full + 8 * stage);
                    }
                    others += PANEL_COLUMN_BYTES;
                    if (++stage == stage_count) {
                        stage = 0;
                        parity ^= 1u;
                    }
                }
                if (broken) break;
            }
        }
    } else {
        asm volatile("setmaxnreg.inc.sync.aligned.u32 232;");
        const int lane = threadIdx.x % 32, warp = threadIdx.x / 32 - 4, group = warp / 4;
        // The accumulators of a thread: rows r and r + 8 of the block, columns 8 j + 2 q and the next.
        const int r = warp * 16 + lane / 4, q = lane % 4;
        const long long i0 = (long long)blockIdx.x * PANEL_ROWS + r, i1 = i0 + 8;
        const bool in0 = i0 < count, in1 = i1 < count;
        const double infinity = __longlong_as_double(0x7FF0000000000000LL);
        const double a0 = in0 ? reach[i0] : 0.0, a1 = in1 ? reach[i1] : 0.0;
        const double s0 = in0 ? slack[i0] : 0.0, s1 = in1 ? slack[i1] : 0.0;
        const float g0 = in0 ? gain[i0] : 0.0f, g1 = in1 ? gain[i1] : 0.0f;
        double up0 = in0 ? from_ordered(upper[i0]) : -infinity, up1 = in1 ? from_ordered(upper[i1]) : -infinity;
        if (resident) await(rows_there, 0, &broken, failed);
        int stage = 0;
        unsigned int parity = 0;
        float d[128];
        for (int panel = 0; panel < panel_count; panel++) {
            int before = -1;
            for (int p = 0; p < piece_count; p++) {
                await(full + 8 * stage, parity, &broken, failed);
                const unsigned int place = ring + stage * stage_bytes;
                const unsigned int left = resident ? base + p * PANEL_ROW_BYTES : place + PANEL_COLUMN_BYTES;
                const unsigned long long a = panel_descriptor(left + group * 64 * 128), b = panel_descriptor(place);
                asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
#pragma unroll
                for (int s = 0; s < 4; s++) multiply(d, a + 2 * s, b + 2 * s, p > 0 || s > 0);
                asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
                if (before >= 0) {
                    asm volatile("wgmma.wait_group.sync.aligned 1;" ::: "memory");
                    if (lane == 0) arrive(empty + 8 * before);
                }
                before = stage;
                if (++stage == stage_count) {
                    stage = 0;
                    parity ^= 1u;
                }
            }
            asm volatile("wgmma.wait_group.sync.aligned 0;" ::: "memory");
            // No look at an accumulator may be moved to before the wait.
#pragma unroll
            for (int j = 0; j < 128; j++) asm volatile("" : "+f"(d[j])::"memory");
            if (lane == 0) arrive(empty + 8 * before);
            const float2* pair = (const float2*)(norms + panel * PANEL_COLUMNS) + q;
            float m0 = __uint_as_float(0x7F800000u), m1 = m0;
#pragma unroll
            for (int j = 0; j < 32; j++) {
                const float2 n = __ldg(pair + 4 * j);
                d[4 * j] = __fmaf_rn(d[4 * j], g0, n.x);
                d[4 * j + 1] = __fmaf_rn(d[4 * j + 1], g0, n.y);
                d[4 * j + 2] = __fmaf_rn(d[4 * j + 2], g1, n.x);
                d[4 * j + 3] = __fmaf_rn(d[4 * j + 3], g1, n.y);
                m0 = fminf(m0, fminf(d[4 * j], d[4 * j + 1]));
                m1 = fminf(m1, fminf(d[4 * j + 2], d[4 * j + 3]));
            }
            float l0 = fminf(m0, __shfl_xor_sync(0xFFFFFFFFu, m0, 1));
            float l1 = fminf(m1, __shfl_xor_sync(0xFFFFFFFFu, m1, 1));
            l0 = fminf(l0, __shfl_xor_sync(0xFFFFFFFFu, l0, 2));
            l1 = fminf(l1, __shfl_xor_sync(0xFFFFFFFFu, l1, 2));
            const double b = bounds[panel], lost = residuals[panel];
            const double e0 = score_error(a0, s0, b, lost, product_term, norm_term, formula_term, tiny_term);
            const double e1 = score_error(a1, s1, b, lost, product_term, norm_term, formula_term, tiny_term);
            up0 = fmin(up0, (double)l0 + e0);
            up1 = fmin(up1, (double)l1 + e1);
            const float limit0 = __double2float_ru(up0 + e0), limit1 = __double2float_ru(up1 + e1);
            const int* own = order + panel * PANEL_COLUMNS + 2 * q;
            if (in0 && m0 <= limit0) {
                append_candidates<0>(d, limit0, e0, own, lengths + r, i0, count, room, found, lower);
            }
            if (in1 && m1 <= limit1) {
                append_candidates<2>(d, limit1, e1, own, lengths + r + 8, i1, count, room, found, lower);
            }
            __syncwarp();
        }
        if (q == 0 && in0) {
            upper[i0] = ordered(up0);
            length[i0] = lengths[r];
        }
        if (q == 0 && in1) {
            upper[i1] = ordered(up1);
            length[i1] = lengths[r + 8];
        }
    }
#endif
}
