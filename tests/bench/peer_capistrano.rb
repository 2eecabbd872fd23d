# Copyright: (c) 2026, the signalbox.runbook authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# The Capistrano peer: a Capfile that uploads an archive in place of a checkout, restarts, and asks every host.
# Usage, in a directory with stages/bench.rb: BENCH_SITE=site.json cap -f peer_capistrano.rb bench deploy

require "json"

SITE = JSON.parse(File.read(ENV.fetch("BENCH_SITE")))

set :stage_config_path, "stages"
set :deploy_config_path, "stages/bench.rb"
require "capistrano/setup"
require "capistrano/deploy"
require "capistrano/scm/plugin"

class Archive < Capistrano::SCM::Plugin
  def register_hooks
    after "deploy:new_release_path", "archive:create_release"
    after "deploy:publishing", "archive:restart"
  end

  def define_tasks
    namespace :archive do
      task :create_release do
        archive = "#{SITE["artifacts"]}/demo-#{ENV.fetch("VERSION")}.tar.gz"
        digest = File.read("#{archive}.sha256").split.first
        set :current_revision, ENV.fetch("VERSION")
        environment = SITE["secrets"].merge("PYTHONUNBUFFERED" => "1", "RELEASE" => ENV["VERSION"])
        lines = environment.map { |key, value| "#{key}=#{value}\n" }.join
        on release_roles(:all) do
          execute :mkdir, "-p", release_path
          upload! archive, "#{release_path}/app.tar.gz"
          execute "echo '#{digest}  #{release_path}/app.tar.gz' | sha256sum -c --quiet && " \
                  "tar -xzf #{release_path}/app.tar.gz -C #{release_path}"
          execute :install, "-m", "0600", "/dev/null", "#{release_path}/env"
          upload! StringIO.new(lines), "#{release_path}/env"
        end
      end

      task :restart do
        version = ENV.fetch("VERSION")
        get = "curl -fsS -m 5 http://127.0.0.1:#{SITE["port"]}"
        healthy = "systemctl is-active --quiet #{SITE["unit"]} && " \
                  "#{get}/health | grep -q '\"status\": *\"ok\"' && " \
                  "#{get}/version | grep -q '\"version\": *\"#{version}\"'"
        on release_roles(:all) do
          execute :sudo, :systemctl, :restart, SITE["unit"]
          execute "sleep 1; for i in $(seq 75); do if #{healthy}; then exit 0; fi; sleep 0.2; done; exit 1"
        end
      end
    end
  end
end

install_plugin Archive

set :application, "demo"
set :deploy_to, SITE["home"]
set :ssh_options, {
  user: SITE["ssh_user"], keys: [SITE["ssh_key"]], keys_only: true, auth_methods: ["publickey"], config: false,
  user_known_hosts_file: SITE["ssh_known_hosts_file"], verify_host_key: :always
}
SITE["targets"].each { |one| server one["address"], roles: %w[app] }
