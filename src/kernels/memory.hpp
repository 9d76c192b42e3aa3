// Memory for weights, KV and the buffers of a step. Included per variant.

// Zeroed memory on cache-line boundaries; pages of it that are never touched take no memory from the system. Pieces are
// cut from chunks of huge pages, because a step reads all weights and would else miss the TLB on every 4 KiB of them.
// Under AddressSanitizer each piece has a chunk of its own, so that reads past its end show.
class Chunk {
 public:
  static std::shared_ptr<void> piece(std::size_t bytes) {
    static std::mutex mutex;
    static std::weak_ptr<Chunk> current;
    const std::lock_guard<std::mutex> lock(mutex);
    bytes = (bytes + 63) / 64 * 64;
    std::shared_ptr<Chunk> chunk = current.lock();
    if (!chunk || chunk->size_ - chunk->used_ < bytes) {
      const bool common = !kAlone && bytes < kChunk / 4;  // else it gets a chunk of its own
      chunk = std::make_shared<Chunk>(common ? kChunk : bytes);
      if (common) current = chunk;
    }
    void* start = chunk->start_ + chunk->used_;
    chunk->used_ += bytes;
    return {chunk, start};
  }

  explicit Chunk(std::size_t bytes) : size_(bytes), memory_(std::calloc(bytes + kBoundary, 1)) {
    if (!memory_) throw std::bad_alloc();
    void* start = memory_.get();
    std::size_t room = bytes + kBoundary;
    start_ = static_cast<char*>(std::align(kBoundary, bytes, start, room));
#if defined(MADV_HUGEPAGE)
    if (!kAlone) madvise(start_, bytes / kHugePage * kHugePage, MADV_HUGEPAGE);
#endif
  }

 private:
#if defined(__SANITIZE_ADDRESS__)
  static constexpr bool kAlone = true;
#else
  static constexpr bool kAlone = false;
#endif
  static constexpr std::size_t kHugePage = std::size_t{2} << 20, kChunk = 16 * kHugePage;
  static constexpr std::size_t kBoundary = kAlone ? 64 : kHugePage;
  struct Free {
    void operator()(void* p) const { std::free(p); }
  };
  std::size_t size_, used_ = 0;
  std::unique_ptr<void, Free> memory_;
  char* start_;
};

template <class T>
class Aligned {
 public:
  // Contents are lost: all elements are zero.
  void reset(std::size_t count) {
    memory_ = Chunk::piece(count * sizeof(T));
    data_ = static_cast<T*>(memory_.get());
    size_ = count;
  }
  // Makes room for at least `count` elements; contents are lost when it grows.
  void reserve(std::size_t count) {
    if (count > size_) reset(count + count / 2);
  }
  void fill(T value) { std::fill(data_, data_ + size_, value); }
  T* get() const { return data_; }
  T& operator[](std::size_t i) const { return data_[i]; }

 private:
  std::shared_ptr<void> memory_;
  T* data_ = nullptr;
  std::size_t size_ = 0;
};
