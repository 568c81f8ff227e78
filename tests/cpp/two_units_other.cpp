/* The other half of two_units.cpp. */
#include "check.hpp"

bool other_unit(std::string &told);

bool other_unit(std::string &told) {
    lines failures;
    const auto network = OK(raftz::network::make());
    auto config = configured(1, 1);
    config.on_failure([&](std::string_view, std::string_view what) { failures.add(std::string(what)); });
    auto node = OK(raftz::node::start(config, in(network)));
#if defined(__cpp_exceptions)
    OK(node.propose("x", [](const raftz::outcome &) { throw std::runtime_error("of the other"); }));
    told = failures.wait_for("of the other");
#else
    static_cast<void>(told);
#endif
    return OK(node.propose_future("x").get()).is_rejected();
}
