// 3x3 convolutions of stride 1 by Winograd's F(4x4, 3x3), float32, channels side by side in memory.
//
// A tile is 4x4 places of the output and depends on 6x6 of the input. In the transformed domain the convolution is a product of matrices
// for each of 36 points. The points are those of form.py, whose matrices are written out below as sums.
//
// A thread takes some tiles at a time ("slots") through all three steps, so that what lies between them stays in its cache. Transformed
// tiles and weights lie in panels of 16 channels, [point][channels / 16][row][16], so that the products read memory in order.
#include <cstdint>
#include <cstdlib>
#include <cstring>

#ifndef LANES  // floats of a vector
#ifdef __AVX512F__
#define LANES 16
#else
#define LANES 8
#endif
#endif

namespace {

constexpr int PANEL = 16, VECTORS = PANEL / LANES, POINTS = 36;
constexpr int ROWS = LANES == 16 ? 12 : 6;  // of a product, whose sums fill the registers
typedef float Vec __attribute__((vector_size(LANES * 4), aligned(4)));
#define INLINE inline __attribute__((always_inline))

INLINE Vec load(const float* from) { return *(const Vec*)from; }
INLINE void store(float* to, Vec value) { *(Vec*)to = value; }

// Transforms along one axis; a tile's is that of its rows, then of its columns.
INLINE void of_input(const Vec* d, Vec* out) {  // form.PIXELS
  const Vec a = d[3] - d[1], b = d[4] - d[2];
  out[0] = .5f * (d[0] + d[4]) + .75f * a - d[2];
  out[1] = .5f * (d[4] - d[1]) + .25f * d[2] + 1.25f * d[3];
  out[2] = .5f * (d[1] + d[4]) - 1.25f * d[2] + .25f * d[3];
  out[3] = a + .5f * b;
  out[4] = b - .5f * a;
  out[5] = .5f * (d[1] + d[5]) + .75f * b - d[3];
}

INLINE void to_output(const Vec* m, Vec* out) {  // form.SUMS
  const Vec a = m[1] + m[2], b = m[1] - m[2];
  out[0] = m[0] + a + m[3] + m[4];
  out[1] = b + .5f * m[3] - 2.f * m[4];
  out[2] = a + .25f * m[3] + 4.f * m[4];
  out[3] = b + .125f * m[3] - 8.f * m[4] + m[5];
}

INLINE void of_gradient(const Vec* y, Vec* out) {  // the transpose of form.SUMS
  const Vec a = y[0] + y[2], b = y[1] + y[3];
  out[0] = y[0];
  out[1] = a + b;
  out[2] = a - b;
  out[3] = y[0] + .5f * y[1] + .25f * y[2] + .125f * y[3];
  out[4] = y[0] - 2.f * y[1] + 4.f * y[2] - 8.f * y[3];
  out[5] = y[3];
}

INLINE void of_weight(const Vec* g, Vec* out) {  // form.WEIGHTS
  out[0] = 2.f * g[0];
  out[1] = (g[0] + g[1] + g[2]) * (2.f / 3);
  out[2] = (g[1] - g[0] - g[2]) * (2.f / 3);
  out[3] = g[0] * (-32.f / 15) + g[1] * (-16.f / 15) + g[2] * (-8.f / 15);
  out[4] = g[0] * (1.f / 15) + g[1] * (-2.f / 15) + g[2] * (4.f / 15);
  out[5] = 2.f * g[2];
}

INLINE void to_weight(const Vec* m, Vec* out) {  // the transpose of form.WEIGHTS
  out[0] = 2.f * m[0] + (m[1] - m[2]) * (2.f / 3) + m[3] * (-32.f / 15) + m[4] * (1.f / 15);
  out[1] = (m[1] + m[2]) * (2.f / 3) + m[3] * (-16.f / 15) + m[4] * (-2.f / 15);
  out[2] = (m[1] - m[2]) * (2.f / 3) + m[3] * (-8.f / 15) + m[4] * (4.f / 15) + 2.f * m[5];
}

}  // namespace

extern "C" {

// One of the two maps; the strides count floats. compiled.py holds the same structures.
struct Maps { int64_t height, width, of_image, of_row, of_pixel; };
// A convolution; `top` and `left` are its padding.
struct Geometry { int64_t images, inputs, outputs, top, left, slots, threads; Maps x, y; };

}

namespace {

struct Tiles {
  int64_t down, across, all, chunks;
  explicit Tiles(const Geometry& g)
      : down((g.y.height + 3) / 4), across((g.y.width + 3) / 4), all(g.images * down * across), chunks((all + g.slots - 1) / g.slots) {}
};

struct Tile { int64_t image, y, x; };

INLINE Tile tile_at(int64_t index, const Tiles& tiles) {
  const int64_t within = index % (tiles.down * tiles.across);
  return {index / (tiles.down * tiles.across), within / tiles.across, within % tiles.across};
}

INLINE void advance(Tile& tile, const Tiles& tiles) {
  if (++tile.x < tiles.across) return;
  tile.x = 0;
  if (++tile.y < tiles.down) return;
  tile.y = 0;
  ++tile.image;
}

// Transform FROM x FROM places of each tile, zeros outside the maps; (top, left) is how far the first tile begins outside.
template <int FROM, void (*TRANSFORM)(const Vec*, Vec*)>
void transform(const float* from, const Maps& maps, int64_t channels, int64_t top, int64_t left, float* to, int64_t first, int count,
               int64_t slots, const Tiles& tiles) {
  const int64_t point = slots * channels;
  Tile tile = tile_at(first, tiles);
  for (int t = 0; t < count; ++t, advance(tile, tiles)) {
    const int64_t row = 4 * tile.y - top, column = 4 * tile.x - left;
    const bool inside = row >= 0 && column >= 0 && row + FROM <= maps.height && column + FROM <= maps.width;
    const float* corner = from + tile.image * maps.of_image + row * maps.of_row + column * maps.of_pixel;
    for (int64_t c = 0; c < channels; c += LANES) {
      Vec half[FROM][6];
#pragma GCC unroll 1
      for (int i = 0; i < FROM; ++i) {
        Vec places[FROM];
        const bool there = row + i >= 0 && row + i < maps.height;
        for (int j = 0; j < FROM; ++j) {
          const bool seen = inside || (there && column + j >= 0 && column + j < maps.width);
          places[j] = seen ? load(corner + i * maps.of_row + j * maps.of_pixel + c) : Vec{};
        }
        TRANSFORM(places, half[i]);
      }
      float* out = to + (c / PANEL * slots + t) * PANEL + c % PANEL;
#pragma GCC unroll 1
      for (int j = 0; j < 6; ++j) {
        Vec places[FROM], whole[6];
        for (int i = 0; i < FROM; ++i) places[i] = half[i][j];
        TRANSFORM(places, whole);
        for (int i = 0; i < 6; ++i) store(out + (i * 6 + j) * point, whole[i]);
      }
    }
  }
}

void write_outputs(const float* from, const float* bias, bool relu, float* y, const Geometry& g, int64_t first, int count, const Tiles& tiles) {
  const int64_t point = g.slots * g.outputs;
  Tile tile = tile_at(first, tiles);
  for (int t = 0; t < count; ++t, advance(tile, tiles)) {
    float* corner = y + tile.image * g.y.of_image + 4 * tile.y * g.y.of_row + 4 * tile.x * g.y.of_pixel;
    const int64_t below = g.y.height - 4 * tile.y, right = g.y.width - 4 * tile.x;
    const int rows = below < 4 ? (int)below : 4, columns = right < 4 ? (int)right : 4;
    for (int64_t c = 0; c < g.outputs; c += LANES) {
      const float* in = from + (c / PANEL * g.slots + t) * PANEL + c % PANEL;
      const Vec shift = bias ? load(bias + c) : Vec{};
      Vec half[4][6];
#pragma GCC unroll 1
      for (int j = 0; j < 6; ++j) {
        Vec places[6], part[4];
        for (int i = 0; i < 6; ++i) places[i] = load(in + (i * 6 + j) * point);
        to_output(places, part);
        for (int i = 0; i < 4; ++i) half[i][j] = part[i];
      }
      for (int i = 0; i < rows; ++i) {
        Vec places[4];
        to_output(half[i], places);
        float* out = corner + i * g.y.of_row + c;
        for (int j = 0; j < 4; ++j) {
          places[j] += shift;
          // As torch's, this keeps NaN.
          if (relu) places[j] = places[j] < Vec{} ? Vec{} : places[j];
        }
        if (columns == 4)
          for (int j = 0; j < 4; ++j) store(out + j * g.y.of_pixel, places[j]);
        else
          for (int j = 0; j < columns; ++j) store(out + j * g.y.of_pixel, places[j]);
      }
    }
  }
}

// N tiles by 16 channels of the output: the sum over the channels of the input.
template <int N>
INLINE void product(const float* tiles, const float* weights, float* out, int64_t channels, int64_t slots) {
  Vec sum[N][VECTORS];
#pragma GCC unroll 16
  for (int i = 0; i < N; ++i)
    for (int v = 0; v < VECTORS; ++v) sum[i][v] = Vec{};
  for (int64_t panel = 0; panel < channels; panel += PANEL, tiles += slots * PANEL, weights += PANEL * PANEL) {
#pragma GCC unroll 4
    for (int c = 0; c < PANEL; ++c) {
      Vec w[VECTORS];
      for (int v = 0; v < VECTORS; ++v) w[v] = load(weights + c * PANEL + v * LANES);
#pragma GCC unroll 16
      for (int i = 0; i < N; ++i)
        for (int v = 0; v < VECTORS; ++v) sum[i][v] += tiles[i * PANEL + c] * w[v];
    }
  }
#pragma GCC unroll 16
  for (int i = 0; i < N; ++i)
    for (int v = 0; v < VECTORS; ++v) store(out + i * PANEL + v * LANES, sum[i][v]);
}

// N channels of the input by 16 of the output: the sum over the tiles is added to `out`.
template <int N>
INLINE void outer(const float* tiles, const float* gradients, float* out, int count) {
  Vec sum[N][VECTORS];
#pragma GCC unroll 16
  for (int i = 0; i < N; ++i)
    for (int v = 0; v < VECTORS; ++v) sum[i][v] = load(out + i * PANEL + v * LANES);
#pragma GCC unroll 2
  for (int t = 0; t < count; ++t) {
    Vec g[VECTORS];
    for (int v = 0; v < VECTORS; ++v) g[v] = load(gradients + t * PANEL + v * LANES);
#pragma GCC unroll 16
    for (int i = 0; i < N; ++i)
      for (int v = 0; v < VECTORS; ++v) sum[i][v] += tiles[t * PANEL + i] * g[v];
  }
#pragma GCC unroll 16
  for (int i = 0; i < N; ++i)
    for (int v = 0; v < VECTORS; ++v) store(out + i * PANEL + v * LANES, sum[i][v]);
}

float* room(int64_t floats) { return (float*)aligned_alloc(64, (floats * 4 + 63) / 64 * 64); }

INLINE int count_of(int64_t first, const Geometry& g, const Tiles& tiles) {
  return (int)(tiles.all - first < g.slots ? tiles.all - first : g.slots);
}

}  // namespace

extern "C" {

// weight [3][3][inputs][outputs] -> [36][outputs / 16][inputs][16]
void winograd_transform_weight(const float* weight, float* to, int64_t inputs, int64_t outputs, int64_t threads) {
  const int64_t point = inputs * outputs;
#pragma omp parallel for num_threads(threads) schedule(static)
  for (int64_t c = 0; c < inputs; ++c)
    for (int64_t k = 0; k < outputs; k += LANES) {
      Vec half[3][6];
      for (int i = 0; i < 3; ++i) {
        Vec taps[3];
        for (int j = 0; j < 3; ++j) taps[j] = load(weight + (i * 3 + j) * point + c * outputs + k);
        of_weight(taps, half[i]);
      }
      float* out = to + (k / PANEL * inputs + c) * PANEL + k % PANEL;
      for (int j = 0; j < 6; ++j) {
        const Vec taps[3] = {half[0][j], half[1][j], half[2][j]};
        Vec whole[6];
        of_weight(taps, whole);
        for (int i = 0; i < 6; ++i) store(out + (i * 6 + j) * point, whole[i]);
      }
    }
}

// from [matrices][rows][columns] -> to [matrices][columns][rows]; a multiple of 16 rows or of columns. Both sides are read and written by
// whole lines of the cache.
void winograd_turn(const float* from, float* to, int64_t matrices, int64_t rows, int64_t columns, int64_t threads) {
#pragma omp parallel for collapse(2) num_threads(threads) schedule(static)
  for (int64_t matrix = 0; matrix < matrices; ++matrix)
    for (int64_t column = 0; column < columns; column += PANEL)
      for (int64_t row = 0; row < rows; row += PANEL) {
        const float* in = from + (matrix * rows + row) * columns + column;
        float* out = to + (matrix * columns + column) * rows + row;
        const int64_t high = rows - row < PANEL ? rows - row : PANEL, wide = columns - column < PANEL ? columns - column : PANEL;
        float block[PANEL][PANEL];
        if (high == PANEL && wide == PANEL) {
          for (int i = 0; i < PANEL; ++i)
            for (int j = 0; j < PANEL; ++j) block[j][i] = in[i * columns + j];
          for (int j = 0; j < PANEL; ++j)
            for (int i = 0; i < PANEL; i += LANES) store(out + j * rows + i, load(block[j] + i));
        } else {
          for (int64_t i = 0; i < high; ++i)
            for (int64_t j = 0; j < wide; ++j) out[j * rows + i] = in[i * columns + j];
        }
      }
}

// y = x * weight + bias, then the ReLU; `weight` of winograd_transform_weight, `bias` may be null. Return 1 where memory is short.
int winograd_convolve(const float* x, const float* weight, const float* bias, int relu, float* y, const Geometry* geometry) {
  const Geometry& g = *geometry;
  const Tiles tiles(g);
  int failed = 0;
#pragma omp parallel num_threads(g.threads)
  {
    float* seen = room(POINTS * g.slots * (g.inputs + g.outputs));
    float* products = seen + POINTS * g.slots * g.inputs;
    if (!seen) {
#pragma omp atomic write
      failed = 1;
    }
#pragma omp for schedule(dynamic)
    for (int64_t chunk = 0; chunk < tiles.chunks; ++chunk) {
      if (!seen) continue;
      const int64_t first = chunk * g.slots;
      const int count = count_of(first, g, tiles);
      transform<6, of_input>(x, g.x, g.inputs, g.top, g.left, seen, first, count, g.slots, tiles);
      for (int64_t p = 0; p < POINTS; ++p)
        for (int64_t k = 0; k < g.outputs; k += PANEL) {
          const float* rows = seen + p * g.slots * g.inputs;
          const float* w = weight + (p * g.outputs + k) * g.inputs;
          float* out = products + (p * g.outputs + k) * g.slots;
          int t = 0;
          for (; t + ROWS <= count; t += ROWS) product<ROWS>(rows + t * PANEL, w, out + t * PANEL, g.inputs, g.slots);
          for (; t + 4 <= count; t += 4) product<4>(rows + t * PANEL, w, out + t * PANEL, g.inputs, g.slots);
          for (; t < count; ++t) product<1>(rows + t * PANEL, w, out + t * PANEL, g.inputs, g.slots);
        }
      write_outputs(products, bias, relu, y, g, first, count, tiles);
    }
    free(seen);
  }
  return failed;
}

// Gradient of the weight, [3][3][inputs][outputs], of x and the gradient of y. Return 1 where memory is short. All threads work on the same
// tiles: first each on some of them, then each on some points. So there is one array of sums, with the same bits for any number of threads.
int winograd_weight_gradient(const float* x, const float* gradient, float* to, const Geometry* geometry) {
  const Geometry& g = *geometry;
  const Tiles tiles(g);
  const int64_t point = g.inputs * g.outputs;
  float* sums = room(POINTS * point);
  float* seen = room(POINTS * g.slots * (g.inputs + g.outputs));
  if (!sums || !seen) {
    free(sums);
    free(seen);
    return 1;
  }
  float* given = seen + POINTS * g.slots * g.inputs;
#pragma omp parallel num_threads(g.threads)
  {
#pragma omp for schedule(static)
    for (int64_t p = 0; p < POINTS; ++p) memset(sums + p * point, 0, point * 4);
    for (int64_t chunk = 0; chunk < tiles.chunks; ++chunk) {
      const int64_t first = chunk * g.slots;
      const int count = count_of(first, g, tiles);
#pragma omp for schedule(static)
      for (int part = 0; part < count; part += 4) {
        const int number = count - part < 4 ? count - part : 4;
        transform<6, of_input>(x, g.x, g.inputs, g.top, g.left, seen + part * PANEL, first + part, number, g.slots, tiles);
        transform<4, of_gradient>(gradient, g.y, g.outputs, 0, 0, given + part * PANEL, first + part, number, g.slots, tiles);
      }
#pragma omp for collapse(2) schedule(static)
      for (int64_t p = 0; p < POINTS; ++p)
        for (int64_t k = 0; k < g.outputs; k += PANEL)
          for (int64_t c = 0; c < g.inputs; c += PANEL) {
            const float* rows = seen + (p * g.inputs + c) * g.slots;
            const float* side = given + (p * g.outputs + k) * g.slots;
            float* out = sums + p * point + k * g.inputs + c * PANEL;
            // As many rows as registers hold sums of.
            if (LANES == 16) {
              outer<8>(rows, side, out, count);
              outer<8>(rows + 8, side, out + 8 * PANEL, count);
            } else {
              outer<6>(rows, side, out, count);
              outer<6>(rows + 6, side, out + 6 * PANEL, count);
              outer<4>(rows + 12, side, out + 12 * PANEL, count);
            }
          }
    }
#pragma omp for schedule(static)
    for (int64_t c = 0; c < g.inputs; ++c)
      for (int64_t k = 0; k < g.outputs; k += LANES) {
        Vec half[6][3];
        const float* in = sums + (k / PANEL * g.inputs + c) * PANEL + k % PANEL;
        for (int i = 0; i < 6; ++i) {
          Vec row[6];
          for (int j = 0; j < 6; ++j) row[j] = load(in + (i * 6 + j) * point);
          to_weight(row, half[i]);
        }
        for (int j = 0; j < 3; ++j) {
          Vec row[6], taps[3];
          for (int i = 0; i < 6; ++i) row[i] = half[i][j];
          to_weight(row, taps);
          for (int i = 0; i < 3; ++i) store(to + (i * 3 + j) * point + c * g.outputs + k, taps[i]);
        }
      }
  }
  free(sums);
  free(seen);
  return 0;
}
}
