// Float32 convolutions on matrix units that multiply bfloat16: x = hi + lo, and x w = hi hi + hi lo + lo hi.
// What is left out, lo lo, is 2^-16 of a product; sums are float32.   Henry, Tang, Heinecke, arXiv:1904.06376.
// Memory is channels-last: a row of A is all channels at one place, so that a shift of the window moves a pointer.

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <ATen/native/CPUBlas.h>
#include <torch/library.h>

#include <cstring>
#include <optional>
#include <vector>

using at::BFloat16;
using at::Tensor;
using at::native::cpublas::brgemm;

namespace {

// float32 to the nearest bfloat16 (ties to even) and the nearest bfloat16 of the rest; negative numbers times slope
void halve(const float* x, uint16_t* hi, uint16_t* lo, int64_t n, float slope) {
  for (int64_t i = 0; i < n; ++i) {
    float v = x[i] < 0 ? x[i] * slope : x[i], top, rest;
    uint32_t u;
    std::memcpy(&u, &v, 4);
    u = (u + 0x7fff + ((u >> 16) & 1)) & 0xffff0000u;
    std::memcpy(&top, &u, 4);
    hi[i] = u >> 16;
    rest = v - top;
    std::memcpy(&u, &rest, 4);
    lo[i] = (u + 0x7fff + ((u >> 16) & 1)) >> 16;
  }
}

// a: (M, K) in rows lda apart; w: (K/2, N, 2); c: (M, N) in rows ldc apart, += a w
void three(int64_t M, int64_t N, int64_t K, int64_t lda, int64_t ldc, const uint16_t* hi, const uint16_t* lo,
           const BFloat16* w_hi, const BFloat16* w_lo, float* c) {
  auto a_hi = reinterpret_cast<const BFloat16*>(hi), a_lo = reinterpret_cast<const BFloat16*>(lo);
  brgemm(M, N, K, lda, N, ldc, true, a_hi, w_hi, c);
  brgemm(M, N, K, lda, N, ldc, true, a_lo, w_hi, c);
  brgemm(M, N, K, lda, N, ldc, true, a_hi, w_lo, c);
}

struct Shape {
  int64_t B, C, H, W, kh, kw, stride, pad_h, pad_w, pad_right, dilation_h, dilation_w;
  int64_t wide() const { return W + pad_w + pad_right; }
  int64_t rows() const { return (H + 2 * pad_h - dilation_h * (kh - 1) - 1) / stride + 1; }
  int64_t columns() const { return (wide() - dilation_w * (kw - 1) - 1) / stride + 1; }
};

// Halves of the places [begin, begin + count) of one padded image, counted row by row.
void margin(const float* image, const Shape& s, int64_t begin, int64_t count, uint16_t* hi, uint16_t* lo, float slope) {
  const int64_t wide = s.wide(), end = begin + count;
  for (int64_t place = begin; place < end;) {
    const int64_t h = place / wide - s.pad_h, w = place % wide - s.pad_w;
    const bool inside = h >= 0 && h < s.H && w >= 0 && w < s.W;
    const int64_t next = inside ? place + s.W - w : w < 0 && h >= 0 && h < s.H ? place - w : place + s.W + s.pad_right - w;
    const int64_t n = (std::min(next, end) - place) * s.C, at = (place - begin) * s.C;
    if (inside) {
      halve(image + (h * s.W + w) * s.C, hi + at, lo + at, n, slope);
    } else {
      std::memset(hi + at, 0, 2 * n);
      std::memset(lo + at, 0, 2 * n);
    }
    place += n / s.C;
  }
}

}  // namespace

// x (B, C, H, W) channels-last; w_hi, w_lo (blocks, kh, kw, C/2, block, 2); plus is added -> (B, N, H', W') channels-last
Tensor conv(const Tensor& x, const Tensor& w_hi, const Tensor& w_lo, const std::optional<Tensor>& bias,
            const std::optional<Tensor>& plus, int64_t stride, int64_t pad_h, int64_t pad_w, int64_t pad_right,
            int64_t dilation_h, int64_t dilation_w, double slope) {
  const Shape s{x.size(0), x.size(1), x.size(2), x.size(3), w_hi.size(1), w_hi.size(2),
                stride, pad_h, pad_w, pad_right, dilation_h, dilation_w};
  const int64_t blocks = w_hi.size(0), NB = w_hi.size(4), N = blocks * NB, C = s.C, wide = s.wide();
  const int64_t Ho = s.rows(), Wo = s.columns(), taps = s.kh * s.kw, size = taps * C * NB;
  const Tensor in = x.contiguous(at::MemoryFormat::ChannelsLast);
  const Tensor more = plus ? plus->contiguous(at::MemoryFormat::ChannelsLast) : Tensor();
  Tensor out = at::empty({s.B, N, Ho, Wo}, x.options().memory_format(at::MemoryFormat::ChannelsLast));
  const float *source = in.data_ptr<float>(), *b = bias ? bias->data_ptr<float>() : nullptr;
  const float* added = plus ? more.data_ptr<float>() : nullptr;
  const BFloat16 *top = w_hi.data_ptr<BFloat16>(), *rest = w_lo.data_ptr<BFloat16>();
  float* target = out.data_ptr<float>();

  // Narrow pictures and strides: the windows are copied out.   Else the picture is shifted under the taps, and what
  // comes out of the margin between two rows is dropped.
  const bool gather = stride > 1 || (Wo <= 4 && s.kh > 1);
  const int64_t span = (s.kh - 1) * dilation_h * wide + (s.kw - 1) * dilation_w;
  const int64_t places = gather ? Ho * Wo : (Ho - 1) * wide + Wo, across = gather ? Wo : wide;
  const int64_t MB = gather ? 64 : std::max<int64_t>(256, span * 2), tiles = (places + MB - 1) / MB;
  const int64_t joined = dilation_w == 1 ? s.kw : 1;  // neighbours lie one after the other: one longer product
  const int64_t threads = at::get_num_threads();
  const int64_t share = std::max<int64_t>(1, std::min(blocks, s.B * tiles * blocks / (4 * threads)));
  const int64_t groups = (blocks + share - 1) / share;
  at::parallel_for(0, s.B * tiles * groups, 1, [&](int64_t first, int64_t last) {
    std::vector<float> sums(MB * NB);
    const int64_t room = gather ? MB * taps * C : (MB + span) * C;
    std::vector<uint16_t> halves(2 * room), band;
    uint16_t *hi = halves.data(), *lo = hi + room;
    int64_t held = -1;
    for (int64_t job = first; job < last; ++job) {
      const int64_t group = job % groups, tile = job / groups % tiles, image = job / groups / tiles;
      const int64_t begin = tile * MB, M = std::min(MB, places - begin);
      const float* picture = source + image * s.H * s.W * C;
      if (held != job / groups) {
        if (!gather) margin(picture, s, begin, M + span, hi, lo, static_cast<float>(slope));
        if (gather) {
          const int64_t above = begin / Wo * stride * wide;
          const int64_t below = ((begin + M - 1) / Wo * stride + (s.kh - 1) * dilation_h + 1) * wide;
          band.resize(2 * (below - above) * C);
          uint16_t *band_hi = band.data(), *band_lo = band_hi + (below - above) * C;
          margin(picture, s, above, below - above, band_hi, band_lo, static_cast<float>(slope));
          for (int64_t m = 0; m < M; ++m)
            for (int64_t k = 0; k < taps; ++k) {
              const int64_t h = (begin + m) / Wo * stride + k / s.kw * dilation_h;
              const int64_t w = (begin + m) % Wo * stride + k % s.kw * dilation_w;
              const int64_t from = (h * wide + w - above) * C, to = (m * taps + k) * C;
              std::memcpy(hi + to, band_hi + from, 2 * C);
              std::memcpy(lo + to, band_lo + from, 2 * C);
            }
        }
        held = job / groups;
      }
      for (int64_t block = group * share; block < std::min(blocks, (group + 1) * share); ++block) {
        const BFloat16 *wh = top + block * size, *wl = rest + block * size;
        for (int64_t m = 0; m < M; ++m)
          for (int64_t n = 0; n < NB; ++n) sums[m * NB + n] = b ? b[block * NB + n] : 0.f;
        if (gather) {
          three(M, NB, taps * C, taps * C, NB, hi, lo, wh, wl, sums.data());
        } else {
          for (int64_t i = 0; i < s.kh; ++i)
            for (int64_t j = 0; j < s.kw; j += joined) {
              const int64_t from = (i * dilation_h * wide + j * dilation_w) * C, tap = (i * s.kw + j) * C * NB;
              three(M, NB, joined * C, C, NB, hi + from, lo + from, wh + tap, wl + tap, sums.data());
            }
        }
        for (int64_t m = 0; m < M; ++m) {
          const int64_t h = (begin + m) / across, w = (begin + m) % across;
          if (w >= Wo) continue;
          const int64_t at = ((image * Ho + h) * Wo + w) * N + block * NB;
          const float* sum = sums.data() + m * NB;
          if (added)
            for (int64_t n = 0; n < NB; ++n) target[at + n] = sum[n] + added[at + n];
          else
            std::memcpy(target + at, sum, 4 * NB);
        }
      }
    }
    at::native::cpublas::brgemm_release();
  });
  return out;
}

TORCH_LIBRARY(audioldm_split, m) {
  m.def("conv(Tensor x, Tensor w_hi, Tensor w_lo, Tensor? bias, Tensor? plus, int stride, int pad_h, int pad_w, int pad_right, int dilation_h, int dilation_w, float slope) -> Tensor");
}
TORCH_LIBRARY_IMPL(audioldm_split, CPU, m) { m.impl("conv", &conv); }
