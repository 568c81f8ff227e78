/* Faults with the library's memory, planted through the header, one for each word that a checker must know. */
#include "check.hpp"

int main(int count, char **arguments) {
    const std::string_view fault = count > 1 ? arguments[1] : "";
    auto bytes = OK(raftz::bytes::copy(std::string(100, 'x')));
    const raftz::slice view = bytes.view();
    if (fault == "leak") {
        static_cast<void>(bytes.release());
    }
    if (fault == "use-after-free") {
        bytes.reset();
        return view.str() == "x" ? 1 : 0;
    }
    return 0;
}
