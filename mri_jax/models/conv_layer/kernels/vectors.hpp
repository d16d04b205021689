// Vectors of a processor's registers, through the compiler's extensions.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <new>
#include <type_traits>
#include <vector>

namespace conv3::detail {

#if defined(__AVX512F__)
constexpr int kRegisters = 32, kLanes = 16;  // vector registers, floats in one
#elif defined(__aarch64__)
constexpr int kRegisters = 32, kLanes = 8;  // a vector of 8 floats takes two registers
#else
constexpr int kRegisters = 16, kLanes = 8;
#endif

template <class T, int L>
struct VectorOf {
  typedef T type __attribute__((vector_size(sizeof(T) * L)));
};
template <class T, int L>
using Vector = typename VectorOf<T, L>::type;
template <class T>
using Integer = std::conditional_t<sizeof(T) == 4, int32_t, int64_t>;

template <int L, class T>
inline Vector<T, L> load(const T* p) {
  Vector<T, L> v;
  std::memcpy(&v, p, sizeof v);
  return v;
}
template <class V, class T>
inline void store(T* p, V v) {
  std::memcpy(p, &v, sizeof v);
}
template <int L, class T>
inline Vector<T, L> all(T value) {
  return value - Vector<T, L>{};
}

// Numbers that begin where a line of the cache does, so that vectors do not lie across two.
template <class T>
struct OnLine {
  using value_type = T;
  OnLine() = default;
  template <class U>
  OnLine(const OnLine<U>&) {}
  T* allocate(size_t n) { return static_cast<T*>(::operator new(n * sizeof(T), std::align_val_t{64})); }
  void deallocate(T* p, size_t) { ::operator delete(p, std::align_val_t{64}); }
  bool operator==(const OnLine&) const = default;
};
template <class T>
using Array = std::vector<T, OnLine<T>>;

template <int L>
using Bytes = Vector<int8_t, L>;
// Integers of one size as those of another, by halves and doubles: GCC takes other steps one by one.
template <class To, class V>
inline auto resized(V v) {
  using From = std::remove_cvref_t<decltype(v[0])>;
  constexpr int L = sizeof(V) / sizeof(From);
  if constexpr (sizeof(From) == sizeof(To)) return v;
  else {
    constexpr int next = sizeof(From) < sizeof(To) ? 2 * sizeof(From) : sizeof(From) / 2;
    using Next = std::conditional_t<next == 1, int8_t, std::conditional_t<next == 2, int16_t,
                                    std::conditional_t<next == 4, int32_t, int64_t>>>;
    return resized<To>(__builtin_convertvector(v, Vector<Next, L>));
  }
}

// Without it GCC holds an address for every voxel in registers that the sums need.
#define CONV3_HIDE(pointer) asm("" : "+r"(pointer))
#define CONV3_UNROLL _Pragma("GCC unroll 32")

template <class T>
constexpr int lanes_of(int64_t filters) {
  return sizeof(T) == 4 && filters % kLanes == 0 ? kLanes : 8;
}

// Eight filters fill half a vector of 16 lanes. Then a row is worked on in two halves at once: a pair is
// voxel w and voxel w + half of one channel or filter, side by side. A row of F filters in pairs is
// [F / 8][half][16]. The first half is even, so that windows pair up too; the second may be shorter.
template <class T>
constexpr bool paired(int64_t filters) {
  return sizeof(T) == 4 && kLanes == 16 && filters % 16;
}
constexpr int64_t half_of(int64_t width) { return width < 2 ? width : (width + 3) / 4 * 2; }
using Pairs = Vector<uint64_t, 8>;
using Half = Vector<float, 8>;
inline Half first_of(Vector<float, 16> v) {
  return (Half)__builtin_convertvector((Pairs)v, Vector<uint32_t, 8>);
}
inline Half second_of(Vector<float, 16> v) {
  return (Half)__builtin_convertvector((Pairs)v >> 32, Vector<uint32_t, 8>);
}
inline Vector<float, 16> pairs_of(Half first, Half second) {
  return (Vector<float, 16>)(__builtin_convertvector((Vector<uint32_t, 8>)first, Pairs) |
                             __builtin_convertvector((Vector<uint32_t, 8>)second, Pairs) << 32);
}
inline Vector<float, 16> twice(Half v) { return pairs_of(v, v); }
// The pairs without what stands second in them.
inline Vector<float, 16> first_alone(Vector<float, 16> v) {
  return (Vector<float, 16>)((Pairs)v & 0xffffffffu);
}
// to[i] = (row[i], row[i + apart]), where a row of `numbers` numbers has no second: 0.
template <class T>
void pair_up(const T* row, int64_t numbers, int64_t apart, int64_t count, T* to) {
  const int64_t whole = std::min(count, numbers - apart);
  for (int64_t i = 0; i < whole; i++) to[2 * i] = row[i], to[2 * i + 1] = row[i + apart];
  for (int64_t i = whole; i < count; i++) to[2 * i] = row[i], to[2 * i + 1] = 0;
}
// A voxel, or with P a pair of them, in all lanes.
template <int L, bool P, class T>
inline Vector<T, L> voxel_at(const T* x) {
  if constexpr (P) {
    uint64_t both;
    std::memcpy(&both, x, sizeof both);
    return (Vector<T, L>)(both + Pairs{});
  } else return all<L>(*x);
}
}  // namespace conv3::detail
