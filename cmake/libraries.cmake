# The outside libraries, each behind one door (ARCHITECTURE.md). All are in Debian 12 and Ubuntu 22.04.
find_package(PkgConfig REQUIRED)
find_package(Threads REQUIRED)
pkg_check_modules(libevent REQUIRED IMPORTED_TARGET libevent_core>=2.1)
pkg_check_modules(libevent_extra REQUIRED IMPORTED_TARGET libevent_extra>=2.1)
pkg_check_modules(jansson REQUIRED IMPORTED_TARGET jansson>=2.13)
pkg_check_modules(libyaml REQUIRED IMPORTED_TARGET yaml-0.1)
pkg_check_modules(libcrypto REQUIRED IMPORTED_TARGET libcrypto>=3.0)
pkg_check_modules(libsystemd REQUIRED IMPORTED_TARGET libsystemd)
