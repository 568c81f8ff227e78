/* What every C++ test shares: checks that end the program with words, failures in either mode, and clusters. */
#ifndef CHECK_HPP
#define CHECK_HPP

#include <raftz.hpp>

#include <array>
#include <condition_variable>
#include <cstdlib>
#include <stdexcept>

using namespace std::chrono_literals;

[[noreturn]] inline void give_up(const char *file, int line, const std::string &what) {
    std::fprintf(stderr, "%s:%d: %s\n", file, line, what.c_str());
    std::fflush(stderr);
    ::_exit(1);
}

#define CHECK(...)                                                                                 \
    do {                                                                                           \
        if (!(__VA_ARGS__)) {                                                                      \
            give_up(__FILE__, __LINE__, #__VA_ARGS__);                                              \
        }                                                                                          \
    } while (0)

inline std::string words(const raftz::error &error) {
    return std::string(error.name()) + ": " + error.message();
}

template <class T>
T must(raftz::result<T> result, const char *file, int line, const char *what) {
    if (!result) {
        give_up(file, line, std::string(what) + "\n  " + words(result.error()));
    }
    if constexpr (!std::is_void_v<T>) {
        return std::move(*result);
    }
}

/* The value of a result that must be one. */
#define OK(...) must((__VA_ARGS__), __FILE__, __LINE__, #__VA_ARGS__)

/* A result that must have failed so, and says so in words. */
#define WANT(wanted, ...)                                                                          \
    do {                                                                                           \
        const auto wanted_result = (__VA_ARGS__);                                                  \
        if (wanted_result || wanted_result.error().status() != (wanted)) {                         \
            give_up(__FILE__, __LINE__,                                                             \
                   #__VA_ARGS__ " is no " #wanted "\n  " + words(wanted_result.error()));          \
        }                                                                                          \
    } while (0)

/* A callback fails: by an exception, or where there are none by what it returns. */
#if defined(__cpp_exceptions)
inline constexpr bool THROWS = true;
#define FAIL(text) throw std::runtime_error(text)
#else
inline constexpr bool THROWS = false;
#define FAIL(text) return raftz::error(text)
#endif

/* How much slower than usual this run is, as under a checker that looks at every access. */
inline unsigned slowness() {
    const char *text = std::getenv("RAFTZ_C_SLOWNESS");
    return text == nullptr ? 1 : static_cast<unsigned>(std::atoi(text));
}

/* A test that hangs must end, and say so by its end. */
inline void watchdog() { ::alarm(120 * slowness()); }

inline bool has(std::string_view text, std::string_view part) {
    return text.find(part) != std::string_view::npos;
}

/* Counts what callbacks do; who waits for a number of them is bounded by the watchdog. */
class tally {
  public:
    void add(unsigned count = 1) {
        const std::lock_guard<std::mutex> lock(lock_);
        count_ += count;
        changed_.notify_all();
    }
    unsigned now() const {
        const std::lock_guard<std::mutex> lock(lock_);
        return count_;
    }
    void wait(unsigned count) const {
        std::unique_lock<std::mutex> lock(lock_);
        changed_.wait(lock, [&] { return count_ >= count; });
    }

  private:
    mutable std::mutex lock_;
    mutable std::condition_variable changed_;
    unsigned count_ = 0;
};

/* Lives on the way through moves, and counts how many have ended: to be held by what must end once. */
class token {
  public:
    explicit token(tally &ended) : ended_(&ended) {}
    token(token &&other) noexcept : ended_(std::exchange(other.ended_, nullptr)) {}
    token &operator=(token &&) = delete;
    ~token() {
        if (ended_ != nullptr) {
            ended_->add();
        }
    }

  private:
    tally *ended_;
};

/* What callbacks were told, in lines. */
class lines {
  public:
    void add(std::string line) {
        {
            const std::lock_guard<std::mutex> lock(lock_);
            lines_.push_back(std::move(line));
        }
        tally_.add();
    }
    /* Waits for a line with these words. */
    std::string wait_for(std::string_view part) const {
        for (unsigned seen = 0;;) {
            {
                const std::lock_guard<std::mutex> lock(lock_);
                for (const std::string &line : lines_) {
                    if (has(line, part)) {
                        return line;
                    }
                }
                seen = static_cast<unsigned>(lines_.size());
            }
            tally_.wait(seen + 1);
        }
    }
    unsigned count() const { return tally_.now(); }

  private:
    mutable std::mutex lock_;
    std::vector<std::string> lines_;
    tally tally_;
};

/* Long enough that a busy machine does not hold elections all the time. Static, for its result has another type
 * without exceptions, which the linker does not see. */
static inline raftz::config configured(std::uint64_t id, std::uint64_t members) {
    raftz::config config(id, "c1");
    for (std::uint64_t member = 1; member <= members; member++) {
        config.founder(member, "127.0.0.1:" + std::to_string(7000 + member));
    }
    config.set("election_timeout_min_ms", 500 * slowness())
        .set("election_timeout_max_ms", 1000 * slowness())
        .set("heartbeat_interval_ms", 100 * slowness())
        .set("propose_timeout_ms", 30000)
        .set("read_timeout_ms", 30000);
    return config;
}

inline raftz::start_options in(const raftz::network &network) {
    raftz::start_options options;
    options.network = &network;
    return options;
}

/* Three nodes in one process. */
struct cluster {
    raftz::network network = OK(raftz::network::make());
    std::array<raftz::node, 3> nodes;

    /* Which of them leads and is ready; waits until one does. */
    std::size_t leader() {
        for (;;) {
            for (std::size_t at = 0; at < nodes.size(); at++) {
                if (nodes[at]) {
                    const raftz_state_info info = OK(nodes[at].state()).info();
                    if (info.role == RAFTZ_ROLE_LEADER && info.is_ready != 0) {
                        return at;
                    }
                }
            }
            ::usleep(2000);
        }
    }
};

#endif
