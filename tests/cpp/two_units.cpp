/* One program of two files that both include the header, perhaps one with exceptions and one without: each works, and
 * what is thrown in the one that has them ends where it should. */
#include "check.hpp"

/* In two_units_other.cpp: starts a node whose completion fails as it can there, and goes on. */
bool other_unit(std::string &told);

int main() {
    watchdog();
    lines failures;
    const auto network = OK(raftz::network::make());
    auto config = configured(1, 1);
    config.on_failure([&](std::string_view, std::string_view what) { failures.add(std::string(what)); });
    auto node = OK(raftz::node::start(config, in(network)));
#if defined(__cpp_exceptions)
    OK(node.propose("x", [](const raftz::outcome &) { throw std::runtime_error("of the first"); }));
    failures.wait_for("of the first");
#endif
    CHECK(OK(node.propose_future("x").get()).is_rejected());
    std::string told;
    CHECK(other_unit(told) && (told.empty() || told == "of the other"));
    return 0;
}
