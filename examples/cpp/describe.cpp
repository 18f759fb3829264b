// Descriptors of a column of patches, in C++ with libtorch.
//
//   describe NETWORK.pt PATCHES.pgm OUT.csv
//
// NETWORK.pt comes out of `hardnet-match export hardnet -o NETWORK.pt`. PATCHES.pgm is a grey 8-bit picture w wide and
// n * w high (binary PGM, which needs no library to read). OUT.csv gets a row of numbers a patch.
#include <torch/script.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <fstream>
#include <iostream>
#include <limits>
#include <stdexcept>
#include <string>

constexpr int64_t kSide = 32;    // of the patches the network takes
constexpr int64_t kBlock = 256;  // patches at a time

// A number of the header; comments run from '#' to the end of the line.
int64_t header_number(std::istream& in) {
  while ((in >> std::ws).peek() == '#') in.ignore(std::numeric_limits<std::streamsize>::max(), '\n');
  int64_t value = 0;
  if (!(in >> value) || value < 0) throw std::runtime_error("the PGM header is damaged");
  return value;
}

// (n, 1, w, w) uint8
torch::Tensor read_column(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  std::string magic;
  if (!(in >> magic) || magic != "P5") throw std::runtime_error(path + " is no binary PGM (P5) file");
  const int64_t width = header_number(in), height = header_number(in), maximum = header_number(in);
  if (maximum != 255) throw std::runtime_error(path + " has not 8 bits a pixel");
  if (width == 0 || height % width != 0) throw std::runtime_error(path + ": the height is no multiple of the width");
  in.get();
  torch::Tensor pixels = torch::empty({height / width, 1, width, width}, torch::kUInt8);
  in.read(reinterpret_cast<char*>(pixels.data_ptr<uint8_t>()), width * height);
  if (in.gcount() != width * height) throw std::runtime_error(path + " is cut off");
  return pixels;
}

int main(int argc, char** argv) {
  if (argc != 4) {
    std::cerr << "usage: describe NETWORK.pt PATCHES.pgm OUT.csv\n";
    return 2;
  }
  try {
    torch::InferenceMode guard;
    torch::jit::script::Module network = torch::jit::load(argv[1]);
    const torch::Tensor stored = read_column(argv[2]);
    std::ofstream out(argv[3]);
    char number[32];
    for (int64_t start = 0; start < stored.size(0); start += kBlock) {
      torch::Tensor patches = stored.slice(0, start, std::min(start + kBlock, stored.size(0))).to(torch::kFloat) / 255;
      if (patches.size(2) != kSide) patches = at::upsample_bilinear2d(patches, {kSide, kSide}, /*align_corners=*/false);
      const torch::Tensor rows = network.forward({patches}).toTensor().contiguous();
      const auto values = rows.accessor<float, 2>();
      for (int64_t i = 0; i < rows.size(0); ++i)
        for (int64_t j = 0; j < rows.size(1); ++j) {
          std::snprintf(number, sizeof number, "%10.5f", values[i][j]);
          out << number << (j + 1 < rows.size(1) ? ',' : '\n');
        }
    }
    if (!out.flush()) throw std::runtime_error(std::string(argv[3]) + " cannot be written");
  } catch (const std::exception& error) {
    std::cerr << "describe: " << error.what() << '\n';
    return 1;
  }
  return 0;
}
