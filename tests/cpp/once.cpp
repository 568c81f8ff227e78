/* What is handed over is destroyed exactly once, whatever becomes of the call; and every future has its result. */
#include "check.hpp"

#include <arpa/inet.h>
#include <sys/socket.h>

#include <atomic>
#include <thread>

class echo : public raftz::machine {
  public:
    echo(tally &ended, bool never_blocks = false) : ends_(ended), never_blocks_(never_blocks) {}
    raftz::result<void> apply(const raftz::commands &batch, raftz::replies &answers) override {
        for (const raftz::command command : batch) {
            answers.push(command.data);
        }
        return {};
    }
    bool never_blocks() const noexcept override { return never_blocks_; }

  private:
    token ends_;
    bool never_blocks_;
};

/* A machine ends once: with its node, or with the start that failed, early or late. */
static void machines(const std::string &folder) {
    tally ended;
    unsigned wanted = 0;
    const auto network = OK(raftz::network::make());
    const auto refused = [&](raftz_status status, raftz::config config,
                             const raftz::start_options &options) {
        WANT(status, raftz::node::start(config, std::make_unique<echo>(ended), options));
        CHECK(ended.now() == ++wanted);
    };
    for (const bool never_blocks : {false, true}) {
        auto node = OK(raftz::node::start(
            configured(1, 1), std::make_unique<echo>(ended, never_blocks), in(network)));
        CHECK(OK(node.propose_wait("x")).text() == "x" && ended.now() == wanted);
        OK(node.stop(1min));
        CHECK(ended.now() == ++wanted);
    }
    {
        /* Without a stop. */
        const auto node =
            OK(raftz::node::start(configured(1, 1), std::make_unique<echo>(ended), in(network)));
    }
    ended.wait(++wanted);

    const int fd = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_in address = {};
    socklen_t length = sizeof address;
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = ::inet_addr("127.0.0.1");
    sockaddr *const any = reinterpret_cast<sockaddr *>(&address);
    CHECK(::bind(fd, any, length) == 0 && ::listen(fd, 1) == 0);
    CHECK(::getsockname(fd, any, &length) == 0);
    auto taken = configured(1, 1);
    taken.listen_address("127.0.0.1:" + std::to_string(ntohs(address.sin_port)));
    refused(RAFTZ_NETWORK, std::move(taken), raftz::start_options());
    ::close(fd);
    refused(RAFTZ_CONFIG, std::move(configured(1, 1).set("no such key", "x")), in(network));
    refused(RAFTZ_CONFIG, std::move(configured(1, 1).set("heartbeat_interval_ms", 100000)),
            in(network));
    refused(RAFTZ_STORAGE, std::move(configured(1, 1).directory(folder + "/none")), in(network));
    raftz::start_options no_socket;
    no_socket.listen_fd = -1;
    refused(RAFTZ_INVALID_ARG, configured(1, 1), no_socket);
}

/* A machine that persists itself is not given again what it has, and fits its log. */
static void persisting(const std::string &folder) {
    class kept : public raftz::machine {
      public:
        kept(std::uint64_t &applied, tally &given, tally &ended)
            : applied_(applied), given_(given), ends_(ended) {}
        raftz::result<void> apply(const raftz::commands &batch, raftz::replies &answers) override {
            for (const raftz::command command : batch) {
                applied_ = command.index;
                answers.push("");
            }
            given_.add(static_cast<unsigned>(batch.size()));
            return {};
        }
        raftz::result<std::optional<std::uint64_t>> applied_index() override { return applied_; }

      private:
        std::uint64_t &applied_;
        tally &given_;
        token ends_;
    };
    tally given, ended;
    std::uint64_t applied = 0;
    const auto network = OK(raftz::network::make());
    auto config = configured(1, 1);
    config.directory(folder + "/persisting");
    OK(raftz::node::bootstrap(config));
    for (unsigned life = 1; life <= 2; life++) {
        auto node = OK(
            raftz::node::start(config, std::make_unique<kept>(applied, given, ended), in(network)));
        OK(node.propose_wait("x"));
        OK(node.stop(1min));
        CHECK(given.now() == life && ended.now() == life);
    }
    applied += 1000;
    WANT(RAFTZ_MACHINE,
         raftz::node::start(config, std::make_unique<kept>(applied, given, ended), in(network)));
    CHECK(ended.now() == 3);
}

/* An observer ends when it is replaced, or when neither configuration nor node needs it. */
static void observers() {
    tally ended;
    const auto network = OK(raftz::network::make());
    const auto watched = [&](raftz::config &config) {
        config.on_event(RAFTZ_EVENTS_ALL, [ends = token(ended)](const raftz_event_info &) {});
        config.on_log(RAFTZ_LOG_INFO, [ends = token(ended)](std::uint32_t, std::string_view) {});
    };
    auto config = configured(1, 1);
    watched(config);
    CHECK(ended.now() == 0);
    watched(config);
    CHECK(ended.now() == 2);
    auto queue = OK(raftz::queue::make());
    config.on_event(RAFTZ_EVENTS_ALL, queue);
    CHECK(ended.now() == 3);
    watched(config);
    CHECK(ended.now() == 4);
    auto node = OK(raftz::node::start(config, in(network)));
    config.reset();
    CHECK(ended.now() == 4);
    OK(node.stop(1min));
    node.reset();
    CHECK(ended.now() == 6);
    {
        auto other = configured(1, 1);
        watched(other);
        const auto moved = std::move(other);
    }
    CHECK(ended.now() == 8);
}

/* Under load from several threads a node is stopped: whatever was accepted ends once, and so does its completion. */
static void completions() {
    constexpr unsigned THREADS = 4;
    constexpr unsigned CALLS = 500;
    tally ended, told;
    std::atomic<unsigned> accepted{0};
    const auto network = OK(raftz::network::make());
    auto node = OK(raftz::node::start(configured(1, 1), in(network)));
    OK(node.wait_for_leader(1min));
    std::vector<std::thread> threads;
    std::array<std::vector<std::future<raftz::result<raftz::reply>>>, THREADS> futures;
    for (unsigned thread = 0; thread < THREADS; thread++) {
        threads.emplace_back([&, thread] {
            for (unsigned call = 0; call < CALLS; call++) {
                /* It can be moved and not copied, as what it holds. */
                auto done = [&told, ends = token(ended)](const raftz::outcome &) { told.add(); };
                const raftz::result<void> taken =
                    call % 2 == 0 ? node.propose(raftz::kv::increment("n"), std::move(done))
                                  : node.read(raftz::kv::get("n"), std::move(done));
                accepted += taken ? 1 : 0;
                futures[thread].push_back(node.propose_future(raftz::kv::increment("m")));
            }
        });
    }
    told.wait(CALLS);
    OK(node.stop(1min));
    for (std::thread &thread : threads) {
        thread.join();
    }
    CHECK(told.now() == accepted && ended.now() == THREADS * CALLS);
    unsigned done = 0;
    for (auto &list : futures) {
        for (auto &future : list) {
            const auto result = future.get();
            done += result ? 1 : 0;
            CHECK(result || result.error().is_fatal() || result.error().is_retriable());
        }
    }
    CHECK(done > 0);
}

/* A node may be moved while it works, and freed by its own completion. */
static void inside() {
    tally ended, told;
    const auto network = OK(raftz::network::make());
    auto node = std::make_unique<raftz::node>(
        OK(raftz::node::start(configured(1, 1), std::make_unique<echo>(ended), in(network))));
    OK(node->wait_for_leader(1min));
    raftz::node moved = std::move(*node);
    node.reset();
    OK(moved.propose("x", [&moved, &told, ends = token(ended)](const raftz::outcome &it) {
        CHECK(it && it.reply() == "x");
        moved.reset();
        told.add();
    }));
    told.wait(1);
    ended.wait(2);
    CHECK(!moved && told.now() == 1);
}

int main(int count, char **arguments) {
    watchdog();
    CHECK(count == 2);
    machines(arguments[1]);
    persisting(arguments[1]);
    observers();
    completions();
    inside();
    return 0;
}
