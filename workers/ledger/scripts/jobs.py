"""Lua scripts on whole jobs: add, pause, end, correct, revive, admit; and counts of work, workers and tickets."""

from __future__ import annotations

from workers.ledger.scripts.common import COMMON

_QUEUE_HELPERS = """
local function clear(job)
  for _, part in ipairs({'todo', 'lease', 'nonce', 'made', 'done', 'tries', 'dead', 'committing'}) do
    redis.call('DEL', P .. part .. ':' .. job)
  end
end

local function enqueue(job, tenant, priority)
  local turn = redis.call('ZSCORE', P .. 'jobs', job) or 0
  redis.call('ZADD', P .. 'jobs', turn, job)
  redis.call('ZADD', P .. 'queue:' .. tenant, place(priority, turn), job)
  redis.call('ZADD', P .. 'tenants', 'NX', redis.call('GET', P .. 'clock') or 0, tenant)
end

local function dequeue(job)
  local tenant = redis.call('HGET', P .. 'job:' .. job, 'tenant')
  redis.call('ZREM', P .. 'jobs', job)
  if tenant then redis.call('ZREM', P .. 'queue:' .. tenant, job) end
end
"""

# ARGV: prefix, job, tenant, priority, bitmap of finished shards, number of dead shards, dead shards..., fact pairs...
# -> 1 when the job was added or is no longer paused, 0 when it was open before. Its priority is set in any case.
ADD = (
    COMMON
    + _QUEUE_HELPERS
    + """
local job, tenant, priority, buried = ARGV[2], ARGV[3], ARGV[4], tonumber(ARGV[6])
local facts = P .. 'job:' .. job
local state = redis.call('HGET', facts, 'state')
if live(job) then
  tenant = redis.call('HGET', facts, 'tenant')
else
  clear(job)
  if #ARGV[5] > 0 then redis.call('SET', P .. 'done:' .. job, ARGV[5]) end
  for i = 7, 6 + buried do redis.call('SADD', P .. 'dead:' .. job, ARGV[i]) end
  for i = 7 + buried, #ARGV, 2 do redis.call('HSET', facts, ARGV[i], ARGV[i + 1]) end
  redis.call('HSET', facts, 'cursor', 0, 'error', '', 'tenant', tenant)
end
redis.call('HSET', facts, 'state', 'open', 'priority', priority)
redis.call('PERSIST', facts)
redis.call('ZREM', P .. 'admitted:' .. tenant, job)
enqueue(job, tenant, priority)
return state == 'open' and 0 or 1
"""
)

# ARGV: prefix, job -> nothing. Running shards continue; no shard is claimed, and expired leases are not freed.
PAUSE = (
    COMMON
    + _QUEUE_HELPERS
    + """
if live(ARGV[2]) then
  dequeue(ARGV[2])
  redis.call('HSET', P .. 'job:' .. ARGV[2], 'state', 'paused')
end
"""
)

# ARGV: prefix, job, state, error, seconds to keep the facts, fact pairs... -> nothing. An ended job keeps its state,
# except that a commit counts: it may have been running when the job was cancelled, and readers see the dataset.
END = (
    COMMON
    + _QUEUE_HELPERS
    + """
local job, facts = ARGV[2], P .. 'job:' .. ARGV[2]
local known, was_live, finished = redis.call('HEXISTS', facts, 'shards') == 1, live(job), done(job)
dequeue(job)
if was_live or not known then
  for i = 6, #ARGV, 2 do redis.call('HSET', facts, ARGV[i], ARGV[i + 1]) end
  if known or #ARGV >= 6 then
    redis.call('HSET', facts, 'state', ARGV[3], 'error', ARGV[4], 'ended_shards', finished)
  end
elseif ARGV[3] == 'committed' then
  redis.call('HSET', facts, 'state', ARGV[3], 'error', ARGV[4])
end
redis.call('EXPIRE', facts, ARGV[5])
clear(job)
"""
)

# ARGV: prefix, job, bitmap of finished shards -> nothing. Leases and faults are kept.
SET_FINISHED = (
    COMMON
    + """
local job = ARGV[2]
if live(job) then
  redis.call('SET', P .. 'done:' .. job, ARGV[3])
  redis.call('DEL', P .. 'todo:' .. job)
  redis.call('HSET', P .. 'job:' .. job, 'cursor', 0)
end
"""
)

# slots(): slots of the registered workers. work(enough): shards that could be claimed now, plus one for the commit of
# each finished build, counted up to ``enough``.
_WORK_HELPERS = """
local function slots()
  local count = 0
  for _, worker in ipairs(redis.call('ZRANGEBYSCORE', P .. 'slots', now, '+inf')) do
    count = count + tonumber(string.match(worker, '^%d+'))
  end
  return count
end

local function work(enough)
  local count = 0
  for _, tenant in ipairs(redis.call('ZRANGE', P .. 'tenants', 0, -1)) do
    local limit = limits(tenant).running_shards
    local room = limit and math.max(0, limit - running(tenant)) or enough
    for _, job in ipairs(redis.call('ZRANGE', P .. 'queue:' .. tenant, 0, -1)) do
      local free, finished, _, total = standing(job)
      local taken = math.max(0, math.min(free, room))
      count, room = count + taken, room - taken
      if total > 0 and finished >= total and redis.call('EXISTS', P .. 'committing:' .. job) == 0 then
        count = count + 1
      end
      if count >= enough then return enough end
    end
  end
  return count
end
"""

# ARGV: prefix, enough -> tickets that would find work now, counted up to ``enough``
COUNT_WORK = COMMON + _WORK_HELPERS + "return work(tonumber(ARGV[2]))"

# ARGV: prefix, queue, tickets for each slot, minimum of slots -> tickets to publish. The window is a few tickets for
# each slot of the registered workers; while more than half of it waits, no worker lacks a ticket.
MISSING_TICKETS = (
    COMMON
    + _WORK_HELPERS
    + """
local window, waiting = math.max(slots(), tonumber(ARGV[4])) * tonumber(ARGV[3]), redis.call('LLEN', ARGV[2])
if 2 * waiting > window then return 0 end
return math.max(0, work(window) - waiting)
"""
)

# ARGV: prefix, worker, slots, seconds until it expires -> nothing
REGISTER_WORKER = (
    COMMON
    + """
local name = ARGV[3] .. ':' .. ARGV[2]
redis.call('ZREMRANGEBYSCORE', P .. 'slots', '-inf', now)
redis.call('ZADD', P .. 'slots', now + tonumber(ARGV[4]), name)
"""
)

# ARGV: prefix -> slots of the registered workers
SLOTS = COMMON + _WORK_HELPERS + "return slots()"

# alive(job): shards of the job under a valid lease. waiting(): shards of open jobs that no worker makes, up to the
# limits of tenants, plus one for each open job whose shards have all ended: a worker has to commit it or to declare
# its failure. Unlike ``work``, it counts expired leases and back-offs: only a worker frees them.
_WAITING = """
local function alive(job)
  local count = 0
  for _, shard in ipairs(redis.call('HKEYS', P .. 'made:' .. job)) do
    if tonumber(redis.call('ZSCORE', P .. 'lease:' .. job, shard) or 0) > now then count = count + 1 end
  end
  return count
end

local function waiting()
  local count = 0
  for _, tenant in ipairs(redis.call('ZRANGE', P .. 'tenants', 0, -1)) do
    local limit, left, busy = limits(tenant).running_shards, 0, 0
    for _, job in ipairs(redis.call('ZRANGE', P .. 'queue:' .. tenant, 0, -1)) do
      local _, finished, dead, total = standing(job)
      local made = alive(job)
      busy, left = busy + made, left + math.max(0, total - finished - dead - made)
      if total > 0 and finished + dead >= total then count = count + 1 end
    end
    count = count + (limit and math.min(left, math.max(0, limit - busy)) or left)
  end
  return count
end
"""

# ARGV: prefix, queue, jobs... -> {slots, waiting tickets, running shards of these jobs, waiting shards of the pool}
POOL_SNAPSHOT = (
    COMMON
    + _WORK_HELPERS
    + _WAITING
    + """
local count = 0
for i = 3, #ARGV do count = count + alive(ARGV[i]) end
return {slots(), redis.call('LLEN', ARGV[2]), count, waiting()}
"""
)

# ARGV: prefix, job, nonce, milliseconds -> 1 while the caller may commit
RENEW_COMMIT = """
if redis.call('GET', ARGV[1] .. 'committing:' .. ARGV[2]) ~= ARGV[3] then return 0 end
return redis.call('PEXPIRE', ARGV[1] .. 'committing:' .. ARGV[2], ARGV[4])
"""

# ARGV: prefix, tenant, job, images, 1 if they count today, seconds until the admission expires
# -> {name of the exceeded quota or '', amount used, limit, seconds until tomorrow (UTC)}
ADMIT = (
    COMMON
    + """
local tenant, job, images, limit = ARGV[2], ARGV[3], tonumber(ARGV[4]), limits(ARGV[2])
local queue, admitted = P .. 'queue:' .. tenant, P .. 'admitted:' .. tenant
local day = math.floor(now / 86400)
local today, left = P .. 'images:' .. tenant .. ':' .. day, math.ceil((day + 1) * 86400 - now)
if redis.call('ZSCORE', queue, job) then return {'', 0, 0, left} end
redis.call('ZREMRANGEBYSCORE', admitted, '-inf', now)
redis.call('ZREM', admitted, job)
local queued = redis.call('ZCARD', queue) + redis.call('ZCARD', admitted)
if limit.queued_jobs and queued >= limit.queued_jobs then return {'queued_jobs', queued, limit.queued_jobs, left} end
if ARGV[5] == '1' and redis.call('HEXISTS', today, job) == 0 then
  local used = tonumber(redis.call('HGET', today, '*') or '0')
  if limit.images_per_day and used + images > limit.images_per_day then
    return {'images_per_day', used, limit.images_per_day, left}
  end
  redis.call('HINCRBY', today, '*', images)
  redis.call('HSET', today, job, images)
  redis.call('EXPIRE', today, left + 86400)
end
redis.call('ZADD', admitted, now + tonumber(ARGV[6]), job)
return {'', queued, 0, left}
"""
)

# ARGV: prefix, tenant, job -> nothing. Undoes the admission of a job that could not be submitted.
WITHDRAW = (
    COMMON
    + """
local today = P .. 'images:' .. ARGV[2] .. ':' .. math.floor(now / 86400)
local images = redis.call('HGET', today, ARGV[3])
if redis.call('ZREM', P .. 'admitted:' .. ARGV[2], ARGV[3]) == 1 and images then
  redis.call('HDEL', today, ARGV[3])
  redis.call('HINCRBY', today, '*', -images)
end
"""
)

# ARGV: prefix, job -> nothing. Frees the dead shards and resets the fault counts.
REVIVE = (
    COMMON
    + """
local job = ARGV[2]
if live(job) then
  for _, shard in ipairs(redis.call('SMEMBERS', P .. 'dead:' .. job)) do
    redis.call('RPUSH', P .. 'todo:' .. job, shard)
  end
  redis.call('DEL', P .. 'dead:' .. job, P .. 'tries:' .. job)
  redis.call('HSET', P .. 'job:' .. job, 'error', '')
end
"""
)

# ARGV: prefix, declined jobs... -> an open job whose shards are all done and that no worker commits, or nothing
JOB_TO_COMMIT = (
    COMMON
    + """
local declined = {}
for i = 2, #ARGV do declined[ARGV[i]] = true end
for _, job in ipairs(redis.call('ZRANGE', P .. 'jobs', 0, -1)) do
  if not declined[job] and redis.call('EXISTS', P .. 'committing:' .. job) == 0 then
    local _, finished, _, total = standing(job)
    if total > 0 and finished >= total then return job end
  end
end
return nil
"""
)

# ARGV: prefix, tenant -> {running shards of the tenant, their limit or 0}
ALLOWANCE = (
    COMMON
    + """
return {running(ARGV[2]), limits(ARGV[2]).running_shards or 0}
"""
)

# ARGV: prefix, job -> its facts in pairs, each cut to a maximum length
FACTS = (
    COMMON
    + """
local found = redis.call('HGETALL', P .. 'job:' .. ARGV[2])
local facts = {}
for i = 1, math.min(#found, 128) do facts[i] = short(found[i]) end
return facts
"""
)

# ARGV: prefix, job -> {shards held by a lease or a back-off, running shards, done, dead, total, images made so far of
# the running shards, 1 while a worker commits the job or a failed commit waits for its back-off}. An expired lease is
# held until a reconciler frees it, but its shard does not count as running.
COUNTS = (
    COMMON
    + """
local job, made, images = ARGV[2], redis.call('HGETALL', P .. 'made:' .. ARGV[2]), 0
local _, finished, dead, total = standing(job)
local held, alive = redis.call('ZCARD', P .. 'lease:' .. job), 0
for i = 1, #made, 2 do
  if tonumber(redis.call('ZSCORE', P .. 'lease:' .. job, made[i]) or 0) > now then
    alive, images = alive + 1, images + tonumber(made[i + 1])
  end
end
return {held, alive, finished, dead, total, images, redis.call('EXISTS', P .. 'committing:' .. job)}
"""
)
