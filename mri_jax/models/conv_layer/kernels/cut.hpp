// How a problem is cut into tasks: by its shape alone, and what is summed up by that of a volume.
#pragma once

#include <algorithm>

#include "problem.hpp"

namespace conv3::detail {

struct Cut {
  int64_t rows, blocks;    // rows of a block, and blocks of a plane
  int64_t planes, depths;  // planes of a range, and ranges of a volume
  int64_t groups;          // groups of filters
  // `numbers`: what each part sums up by itself, of `number` bytes each.
  Cut(const Shape& s, int64_t ring_channels, int64_t tiles_of_filters, size_t number, int64_t numbers) {
    constexpr int64_t kRingBytes = 300000, kMostRows = 16, kFewestPlanes = 4, kParts = 32, kTasks = 16;
    constexpr int64_t kPartBytes = 16 << 20;  // of all parts of a volume
    const int64_t most = std::clamp<int64_t>(kPartBytes / (numbers * number), 1, kParts);
    const int64_t row = number * 4 * (s.w + 2) * ring_channels;
    cut(s.h, (s.h - 1) / (std::clamp<int64_t>(kRingBytes / row - 2, 2, kMostRows) / 2 * 2) + 1, rows, blocks);
    cut(s.d, std::clamp<int64_t>(most / blocks, 1, std::max<int64_t>(1, s.d / kFewestPlanes)), planes, depths);
    groups = std::clamp<int64_t>(kTasks / (s.n * parts()), 1, tiles_of_filters);
  }
  int64_t parts() const { return depths * blocks; }  // of a volume
  int64_t voxels(const Shape& s, int64_t part) const {
    const int64_t d = part / blocks * planes, h = part % blocks * rows;
    return std::min(planes, s.d - d) * std::min(rows, s.h - h) * s.w;
  }

 private:
  // Pieces of an even length, so that none cuts a window.
  static void cut(int64_t size, int64_t wanted, int64_t& length, int64_t& pieces) {
    length = ((size + wanted - 1) / wanted + 1) / 2 * 2;
    pieces = (size + length - 1) / length;
  }
};
struct Task {
  int64_t part, n, first_plane, end_plane, first_row, end_row, group, groups;
  Task(const Cut& cut, const Shape& s, int index)
      : part(index / cut.groups), n(part / cut.parts()),
        first_plane(part % cut.parts() / cut.blocks * cut.planes),
        end_plane(std::min(s.d, first_plane + cut.planes)), first_row(part % cut.blocks * cut.rows),
        end_row(std::min(s.h, first_row + cut.rows)), group(index % cut.groups), groups(cut.groups) {}
  // The part of `count` tiles that this task works on.
  int64_t begin(int64_t count) const { return count * group / groups; }
  int64_t end(int64_t count) const { return count * (group + 1) / groups; }
};

}  // namespace conv3::detail
