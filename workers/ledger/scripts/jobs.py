"""Atomic steps of a whole job: add, pause, end, correct, admit; and how much work there is."""

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

# ARGV: prefix, job, tenant, priority, bitmap of finished shards, number of dead ones, those..., facts in pairs...
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

# ARGV: prefix, job -> nothing. Shards that are being made go on; none is claimed, and the leases are not looked at.
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

# ARGV: prefix, job, state, error, seconds to remember it, facts in pairs... -> nothing. What has ended stays as it
# ended, but for a commit: it may have been under way when somebody cancelled the job, and readers see the dataset.
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

# ARGV: prefix, job, bitmap of finished shards -> nothing. Leases and faults stay.
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

# Slots of the workers that announced themselves lately; shards that could be claimed now, counted up to ``enough``,
# and one more for each finished build, for its commit.
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

# ARGV: prefix, enough -> tickets that would find something to do now, counted up to ``enough``
COUNT_WORK = COMMON + _WORK_HELPERS + "return work(tonumber(ARGV[2]))"

# ARGV: prefix, queue, tickets for each slot, slots at least -> tickets that are missing. The window is a few tickets
# for each slot of the workers that announced themselves; while half of it waits, nobody lacks a ticket.
MISSING_TICKETS = (
    COMMON
    + _WORK_HELPERS
    + """
local window, waiting = math.max(slots(), tonumber(ARGV[4])) * tonumber(ARGV[3]), redis.call('LLEN', ARGV[2])
if 2 * waiting > window then return 0 end
return math.max(0, work(window) - waiting)
"""
)

# ARGV: prefix, worker, slots, seconds to remember it -> nothing
REGISTER_WORKER = (
    COMMON
    + """
local name = ARGV[3] .. ':' .. ARGV[2]
redis.call('ZREMRANGEBYSCORE', P .. 'slots', '-inf', now)
redis.call('ZADD', P .. 'slots', now + tonumber(ARGV[4]), name)
"""
)

# ARGV: prefix -> slots of the workers that announced themselves lately
SLOTS = COMMON + _WORK_HELPERS + "return slots()"

# ARGV: prefix, queue, jobs... -> {slots, tickets that wait, shards of these jobs that are being made}
POOL_SNAPSHOT = (
    COMMON
    + _WORK_HELPERS
    + """
local count = 0
for i = 3, #ARGV do
  for _, shard in ipairs(redis.call('HKEYS', P .. 'made:' .. ARGV[i])) do
    if tonumber(redis.call('ZSCORE', P .. 'lease:' .. ARGV[i], shard) or 0) > now then count = count + 1 end
  end
end
return {slots(), redis.call('LLEN', ARGV[2]), count}
"""
)

# ARGV: prefix, job, nonce, milliseconds -> 1 while the caller may commit
RENEW_COMMIT = """
if redis.call('GET', ARGV[1] .. 'committing:' .. ARGV[2]) ~= ARGV[3] then return 0 end
return redis.call('PEXPIRE', ARGV[1] .. 'committing:' .. ARGV[2], ARGV[4])
"""

# ARGV: prefix, tenant, job, images, 1 if they count today, seconds to hold the place
# -> {what is exceeded or '', how much there is, the limit, seconds until tomorrow}
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

# ARGV: prefix, tenant, job -> nothing: a job that was admitted and could not be submitted
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

# ARGV: prefix, job -> nothing: dead shards are free again, and faults are forgotten
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

# ARGV: prefix, declined jobs... -> an open job whose shards are all done and that nobody commits, or nothing
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

# ARGV: prefix, tenant -> {shards of the tenant that are being made, how many may be or 0}
ALLOWANCE = (
    COMMON
    + """
return {running(ARGV[2]), limits(ARGV[2]).running_shards or 0}
"""
)

# ARGV: prefix, job -> its facts in pairs, each cut to a length
FACTS = (
    COMMON
    + """
local found = redis.call('HGETALL', P .. 'job:' .. ARGV[2])
local facts = {}
for i = 1, math.min(#found, 128) do facts[i] = short(found[i]) end
return facts
"""
)

# ARGV: prefix, job -> {shards held by a lease or a back-off, of these being made, done, dead, all, images made so far
# of those being made, 1 while somebody commits the job or waits to try again}. A lease that has run out is held until
# a reconciler frees it, and where no worker is left none does; its shard is not being made.
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
