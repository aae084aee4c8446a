// What the kernels use of CUDA, for a host compiler: the same source, one thread after the other. A kernel whose blocks
// work together runs once a block, its phases as loops over the block's threads.
// Compile without contraction (-ffp-contract=off), so that +, - and * are the intrinsics they stand for.

#include <math.h>
#include <string.h>

#define __device__
#define __forceinline__ inline
#define __global__ __attribute__((used))
#define __launch_bounds__(...)
#define __shared__ static thread_local

struct Place {
    unsigned int x;
};
static thread_local Place blockIdx, blockDim, threadIdx;
static thread_local int backwards;

#define EACH_THREAD(t) for (int n_##t = 0, t = backwards * 255; n_##t < 256; n_##t++, t += 1 - 2 * backwards)
#define OWN(type, name) static thread_local type name[256]
#define MY(name, t) name[t]
#define ONCE_A_BLOCK if (threadIdx.x != 0) return;
#define MEET

static inline double __dadd_rn(double a, double b) { return a + b; }
static inline double __dsub_rn(double a, double b) { return a - b; }
static inline double __dmul_rn(double a, double b) { return a * b; }
static inline double __ddiv_rn(double a, double b) { return a / b; }
static inline double __dsqrt_rn(double a) { return sqrt(a); }
static inline float __fadd_rn(float a, float b) { return a + b; }
static inline float __fmul_rn(float a, float b) { return a * b; }
static inline float __fmaf_rn(float a, float b, float c) { return fmaf(a, b, c); }
static inline float __double2float_rn(double a) { return (float)a; }

template <typename To, typename From>
static inline To bits_as(From from) {
    static_assert(sizeof(To) == sizeof(From), "same size");
    To to;
    memcpy(&to, &from, sizeof to);
    return to;
}
static inline long long __double_as_longlong(double a) { return bits_as<long long>(a); }
static inline double __longlong_as_double(long long a) { return bits_as<double>(a); }
static inline unsigned int __float_as_uint(float a) { return bits_as<unsigned int>(a); }
static inline float __uint_as_float(unsigned int a) { return bits_as<float>(a); }

template <typename T>
static inline T replace(T* place, T value) {
    T old = *place;
    *place = value;
    return old;
}
static inline int atomicAdd(int* place, int value) { return replace(place, *place + value); }
static inline unsigned long long atomicAdd(unsigned long long* place, unsigned long long value) {
    return replace(place, *place + value);
}
static inline long long atomicMin(long long* place, long long value) {
    return replace(place, value < *place ? value : *place);
}
static inline long long atomicMax(long long* place, long long value) {
    return replace(place, value > *place ? value : *place);
}
static inline unsigned int atomicOr(unsigned int* place, unsigned int value) { return replace(place, *place | value); }
