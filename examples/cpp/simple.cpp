/*
 * One node with its data on disk: write, read, stop, start again, and find everything there.
 *
 * A cluster of one is a whole cluster: it elects itself, and what it acknowledges is on its disk.
 * The file needs nothing but raftz.hpp, to be pasted and changed:
 *
 *     c++ -std=c++17 simple.cpp $(pkg-config --cflags --libs raftz) -o simple && ./simple
 *
 * It keeps its data in the directory that it is given, and otherwise in one that it removes again.
 */
#include <raftz.hpp>

#include <cstdlib>
#include <filesystem>
#include <iostream>

namespace kv = raftz::kv;
using namespace std::chrono_literals;

/* How long to wait for something that takes milliseconds on an idle machine. */
static constexpr auto PATIENCE = 30s;

/* Says why something failed. Every result is a value or such an error. */
static bool failed(const char *what, const raftz::error &why) {
    std::cerr << what << ": " << why.name() << ": " << why.message() << "\n";
    return false;
}

static bool set(raftz::node &node, const char *key, const char *value) {
    raftz::propose_options options;
    options.timeout = PATIENCE;
    const auto reply = node.propose_wait(kv::set(key, value), options);
    if (!reply) {
        return failed(key, reply.error());
    }
    std::cout << "set " << key << ": entry " << reply->index() << " of term " << reply->term() << "\n";
    return true;
}

static bool expect(const raftz::node &node, const char *key, const char *expected) {
    const auto options = raftz::read_options::linearizable().within(PATIENCE);
    const auto answer = kv::answer::of(node.read_wait(kv::get(key), options));
    if (!answer) {
        return failed(key, answer.error());
    }
    std::cout << "get " << key << ": " << answer->value().text() << "\n";
    return answer->is_on() && answer->value() == expected;
}

static bool run(const raftz::config &config) {
    /* Once in the life of a cluster. A start never formats, so that a lost disk is noticed. */
    const auto is_formatted = raftz::node::is_formatted(config);
    if (!is_formatted) {
        return failed("look", is_formatted.error());
    }
    if (!*is_formatted) {
        if (const auto founded = raftz::node::bootstrap(config); !founded) {
            return failed("found", founded.error());
        }
    }
    for (const bool is_first : {true, false}) {
        auto node = raftz::node::start(config);
        if (!node) {
            return failed("start", node.error());
        }
        if (is_first && !(set(*node, "greeting", "hello, log") && set(*node, "city", "Torino"))) {
            return false;
        }
        if (!expect(*node, "greeting", "hello, log") || !expect(*node, "city", "Torino")) {
            return false;
        }
        /* Its destructor stops it, too, but does not say whether all of it has ended. */
        if (const auto stopped = node->stop(PATIENCE); !stopped) {
            return failed("stop", stopped.error());
        }
        if (is_first) {
            std::cout << "stopped; starting again on the same directory\n";
        }
    }
    return true;
}

int main(int argc, char **argv) {
    std::string temporary = (std::filesystem::temp_directory_path() / "raftz-simple-XXXXXX").string();
    if (argc <= 1 && ::mkdtemp(temporary.data()) == nullptr) {
        std::perror(temporary.c_str());
        return EXIT_FAILURE;
    }
    const std::string directory = argc > 1 ? argv[1] : temporary;
    raftz::config config(1, "c1a5");
    /* Nobody else is in this cluster, so nobody will ever call at the founder's address. */
    config.founder(1, "127.0.0.1:7001").directory(directory);
    const bool as_claimed = run(config);
    if (argc <= 1) {
        std::error_code ignored;
        std::filesystem::remove_all(directory, ignored);
    }
    std::cout << (as_claimed ? "simple: all as claimed\n" : "simple: FAILED\n");
    return as_claimed ? EXIT_SUCCESS : EXIT_FAILURE;
}
