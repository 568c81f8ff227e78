/*
 * Three nodes in one process, over TCP, with their logs on disk and a state machine of their own.
 *
 * Three writers are at work, one at each node, when the leader stops. Another takes over, and the
 * writer whose node is gone goes on at the next. The old leader comes back on its directory and
 * catches up, by the log or by a snapshot. In the end everything that was ever acknowledged is read
 * back from each node, and the three states are compared.
 *
 *     cluster [writes]
 */
#include <raftz.hpp>

#include <arpa/inet.h>
#include <sys/socket.h>

#include <array>
#include <atomic>
#include <cstdlib>
#include <filesystem>
#include <iostream>
#include <map>
#include <thread>

using namespace std::chrono_literals;
using timepoint = std::chrono::steady_clock::time_point;

static constexpr std::size_t NODES = 3;
/* How long to wait for something that takes milliseconds on an idle machine. */
static constexpr auto PATIENCE = 60s;

static timepoint now() { return std::chrono::steady_clock::now(); }

static std::string words(const raftz::error &why) {
    return std::string(why.name()) + ": " + why.message();
}

/*
 * The state: names and what was written under them. A command is `name=value`; a question is a
 * name, or nothing for all of it.
 */
class notebook final : public raftz::snapshot_machine {
  public:
    raftz::result<void> apply(const raftz::commands &batch, raftz::replies &answers) override {
        for (const raftz::command command : batch) {
            const std::string_view text = command.data.text();
            const std::size_t equals = text.find('=');
            if (equals == std::string_view::npos) {
                /* An ordinary answer: to fail would stop this replica, and each other in the same way. */
                answers.reject("this is no name=value");
                continue;
            }
            notes_.insert_or_assign(std::string(text.substr(0, equals)),
                                    std::string(text.substr(equals + 1)));
            answers.push(std::to_string(notes_.size()));
        }
        return {};
    }

    raftz::result<void> query(raftz::slice request, raftz::sink &answer) const override {
        if (request.empty()) {
            answer.write(written());
        } else if (const auto found = notes_.find(request.str()); found != notes_.end()) {
            answer.write(found->second);
        } else {
            answer.reject();
        }
        return {};
    }

    raftz::result<std::unique_ptr<raftz::snapshot>> snapshot() override {
        return raftz::snapshot_of(written());
    }

    raftz::result<void> restore(raftz::source &from) override {
        const auto text = from.read_all();
        if (!text) {
            return text.error();
        }
        notes_.clear();
        for (std::size_t at = 0; at < text->size();) {
            const std::size_t equals = text->find('=', at);
            const std::size_t end = text->find('\n', at);
            if (equals == std::string::npos || end == std::string::npos || equals > end) {
                return raftz::error("a snapshot of something else");
            }
            notes_.emplace(text->substr(at, equals - at), text->substr(equals + 1, end - equals - 1));
            at = end + 1;
        }
        return {};
    }

  private:
    std::string written() const {
        std::string text;
        for (const auto &[name, value] : notes_) {
            text += name + "=" + value + "\n";
        }
        return text;
    }

    std::map<std::string, std::string> notes_;
};

/*
 * Ports for nodes that stop and come back: sockets that are bound and never listen, so that the
 * system gives the ports to nobody else, while a node that reuses addresses can have them.
 */
class ports {
  public:
    ports() {
        for (std::size_t at = 0; at < NODES; at++) {
            const int yes = 1;
            sockaddr_in address = {};
            socklen_t length = sizeof address;
            address.sin_family = AF_INET;
            address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
            sockaddr *const any = reinterpret_cast<sockaddr *>(&address);
            sockets_[at] = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
            if (sockets_[at] < 0 ||
                ::setsockopt(sockets_[at], SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes) != 0 ||
                ::bind(sockets_[at], any, length) != 0 ||
                ::getsockname(sockets_[at], any, &length) != 0) {
                std::perror("a port");
                std::exit(EXIT_FAILURE);
            }
            addresses[at] = "127.0.0.1:" + std::to_string(ntohs(address.sin_port));
        }
    }
    ~ports() {
        for (const int socket : sockets_) {
            ::close(socket);
        }
    }
    ports(const ports &) = delete;
    ports &operator=(const ports &) = delete;

    std::array<std::string, NODES> addresses;

  private:
    std::array<int, NODES> sockets_ = {};
};

/* Three nodes. Whoever calls one shares it meanwhile, so that it can be stopped under the callers. */
class cluster {
  public:
    explicit cluster(std::filesystem::path folder) : folder_(std::move(folder)) {}

    /* Founds all three and starts them; why not, if that fails. */
    raftz::result<void> start() {
        for (std::size_t at = 0; at < NODES; at++) {
            if (auto founded = raftz::node::bootstrap(config(at)); !founded) {
                return founded;
            }
        }
        for (std::size_t at = 0; at < NODES; at++) {
            if (auto started = start(at); !started) {
                return started;
            }
        }
        return {};
    }

    raftz::result<void> start(std::size_t at) {
        auto node = raftz::node::start(config(at), std::make_unique<notebook>());
        if (!node) {
            return node.error();
        }
        const std::lock_guard<std::mutex> lock(lock_);
        nodes_[at] = std::make_shared<raftz::node>(std::move(*node));
        return {};
    }

    raftz::result<void> stop(std::size_t at) {
        std::shared_ptr<raftz::node> node;
        {
            const std::lock_guard<std::mutex> lock(lock_);
            node.swap(nodes_[at]);
        }
        return node == nullptr ? raftz::result<void>() : node->stop(PATIENCE);
    }

    /* This node, or the next one that runs. */
    std::shared_ptr<raftz::node> from(std::size_t at) const {
        const std::lock_guard<std::mutex> lock(lock_);
        for (std::size_t step = 0; step < NODES; step++) {
            if (const auto &node = nodes_[(at + step) % NODES]; node != nullptr) {
                return node;
            }
        }
        return nullptr;
    }

  private:
    raftz::config config(std::size_t at) const {
        raftz::config config(at + 1, "c1a5");
        for (std::size_t member = 0; member < NODES; member++) {
            config.founder(member + 1, ports_.addresses[member]);
        }
        config.listen_address(ports_.addresses[at])
            .directory((folder_ / ("node-" + std::to_string(at + 1))).string())
            .set("snapshot_log_entries", 1000)
            .set("snapshot_retain_bytes", 4096);
        return config;
    }

    std::filesystem::path folder_;
    ports ports_;
    mutable std::mutex lock_;
    std::array<std::shared_ptr<raftz::node>, NODES> nodes_;
};

/* What one writer was promised. */
struct ledger {
    std::uint64_t acknowledged = 0;
    std::uint64_t last_index = 0;
    std::chrono::milliseconds longest_gap = 0ms;
    std::string why;
};

static std::string name_of(std::size_t writer, std::uint64_t number) {
    return std::to_string(writer) + "/" + std::to_string(number);
}

static std::string value_of(std::size_t writer, std::uint64_t number) {
    return std::to_string((writer + 1) * 1000003 * (number + 1));
}

/* Writes one note after the other, each until it is acknowledged: to write one twice does no harm. */
static void write(const cluster &nodes, std::size_t writer, std::uint64_t writes,
                  std::atomic<std::uint64_t> &acknowledged, ledger &kept) {
    timepoint last = now();
    for (std::uint64_t number = 0; number < writes; number++) {
        const std::string command = name_of(writer, number) + "=" + value_of(writer, number);
        for (;;) {
            const auto node = nodes.from(writer);
            const auto reply = node->propose_future(command).get();
            if (reply) {
                kept.last_index = reply->index();
                break;
            }
            const raftz::error &why = reply.error();
            const bool may_try = why.is_retriable() || why.is_outcome_unknown() ||
                                 why.status() == RAFTZ_SHUT_DOWN;
            if (!may_try || now() - last > PATIENCE) {
                kept.why = words(why);
                return;
            }
            std::this_thread::sleep_for(1ms);
        }
        const timepoint then = std::exchange(last, now());
        const auto gap = std::chrono::duration_cast<std::chrono::milliseconds>(last - then);
        kept.longest_gap = std::max(kept.longest_gap, gap);
        kept.acknowledged++;
        acknowledged++;
    }
}

/* Reads back what was acknowledged from each node; how much is lost, and in `why` what. */
static std::uint64_t lost(const cluster &nodes, const std::array<ledger, NODES> &ledgers,
                          std::string &why) {
    std::uint64_t lost = 0, last_index = 0;
    std::string first;
    for (const ledger &kept : ledgers) {
        last_index = std::max(last_index, kept.last_index);
    }
    for (std::size_t at = 0; at < NODES; at++) {
        const auto node = nodes.from(at);
        const auto options = raftz::read_options::at_least(last_index).within(PATIENCE);
        for (std::size_t writer = 0; writer < NODES; writer++) {
            for (std::uint64_t number = 0; number < ledgers[writer].acknowledged; number++) {
                const auto reply = node->read_wait(name_of(writer, number), options);
                if (!reply || reply->is_rejected() || reply->text() != value_of(writer, number)) {
                    lost++;
                    why = "node " + std::to_string(node->id()) + ": " + name_of(writer, number) +
                          (reply ? " was acknowledged" : ": " + words(reply.error()));
                }
            }
        }
        const auto all = node->read_wait("", options);
        if (at == 0 && all) {
            first = all->str();
        }
        if (!all || first.empty() || all->text() != first) {
            lost++;
            why = "the states differ";
        }
    }
    return lost;
}

/* All of it; in `why` what was wrong, if anything was. */
static void run(cluster &nodes, std::uint64_t writes, std::string &why) {
    std::atomic<std::uint64_t> acknowledged{0};
    std::array<ledger, NODES> ledgers;
    std::vector<std::thread> writers;
    for (std::size_t at = 0; at < NODES; at++) {
        writers.emplace_back([&, at] {
            write(nodes, at, (writes + NODES - 1) / NODES, acknowledged, ledgers[at]);
        });
    }
    std::size_t leader = 0;
    const auto step = [&](const char *what, const raftz::result<void> &done) {
        if (!done && why.empty()) {
            why = std::string(what) + ": " + words(done.error());
        }
        std::cout << what << "\n";
    };
    const auto until = [&](std::uint64_t count) {
        const timepoint end = now() + 2 * PATIENCE;
        while (acknowledged < count && now() < end) {
            std::this_thread::sleep_for(1ms);
        }
    };
    until(writes / 4);
    if (const auto found = nodes.from(0)->wait_for_leader(PATIENCE); found) {
        leader = static_cast<std::size_t>(*found - 1);
        std::cout << "node " << *found << " leads; " << acknowledged << " writes are acknowledged\n";
    } else {
        why = words(found.error());
    }
    step("the leader stops", nodes.stop(leader));
    until(writes * 3 / 4);
    std::cout << acknowledged << " writes are acknowledged\n";
    step("it comes back", nodes.start(leader));
    std::chrono::milliseconds longest_gap = 0ms;
    for (std::size_t at = 0; at < NODES; at++) {
        writers[at].join();
        longest_gap = std::max(longest_gap, ledgers[at].longest_gap);
        if (!ledgers[at].why.empty()) {
            why = ledgers[at].why;
        }
    }
    const std::uint64_t missing = lost(nodes, ledgers, why);
    for (std::size_t at = 0; at < NODES; at++) {
        if (const auto stopped = nodes.stop(at); !stopped) {
            why = words(stopped.error());
        }
    }
    std::cout << (why.empty() ? "PASS: " : "FAIL: ") << acknowledged << " acknowledged writes, "
              << missing << " lost, failover " << longest_gap.count() << " ms"
              << (why.empty() ? "" : "; ") << why << "\n";
}

int main(int argc, char **argv) {
    const std::uint64_t writes = argc > 1 ? std::strtoull(argv[1], nullptr, 10) : 3000;
    std::string folder = (std::filesystem::temp_directory_path() / "raftz-cluster-XXXXXX").string();
    if (::mkdtemp(folder.data()) == nullptr) {
        std::perror(folder.c_str());
        return EXIT_FAILURE;
    }
    std::string why;
    {
        cluster nodes{std::filesystem::path(folder)};
        if (const auto started = nodes.start(); !started) {
            why = words(started.error());
            std::cout << "FAIL: " << why << "\n";
        } else {
            run(nodes, writes, why);
        }
    }
    std::error_code ignored;
    std::filesystem::remove_all(folder, ignored);
    return why.empty() ? EXIT_SUCCESS : EXIT_FAILURE;
}
