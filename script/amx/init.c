/* The first process of the emulated machine: runs the tests, and lets the console have all of their output before it ends with their
   code, of which the kernel dies. */
#include <stdlib.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

int main(int count, char **arguments) {
  (void)count;
  int status = 1;
  pid_t child = fork();
  if (child == 0) {
    arguments[0] = "/tests";
    execv(arguments[0], arguments);
    _exit(127);
  }
  if (child > 0)
    waitpid(child, &status, 0);
  tcdrain(STDOUT_FILENO);
  sleep(1);
  return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}
